/* Theory of operation.
 *
 * The name that was dialled decides where a connection goes; the first bytes only may not contradict it, or
 * one allowed host on a shared front end would stand for all hosts behind it. Both formats are read strictly:
 * where two readers could see different names (two Host headers, a folded line, a blank before the colon, a
 * second name in the SNI list) the answer is BAD. What is not TLS and not HTTP is opaque and passes: it went
 * to the host it was dialled for.
 *
 * A first line that begins with a word of printable characters is a request's if it ends in HTTP/x.y,
 * whatever else is before that: servers differ in what they take for a method and for a blank, so a line that
 * only the most lenient of them reads as a request is BAD. With another byte in its first word it is a binary
 * protocol's, which must not wait for a line that never ends. So is a request without a version that names a
 * host, which some answer for that host, and the header of the PROXY protocol, behind which a connection
 * begins anew. Protocols with text commands (SMTP, FTP, IMAP, Redis) are not held up longer than one line. */
#include "netpolicy/sniff.h"

#include <string.h>
#include <strings.h>

#define TLS_RECORD_HEADER 5
#define TLS_HANDSHAKE 22
#define TLS_CLIENT_HELLO 1
#define EXT_SERVER_NAME 0
#define EXT_ECH 0xfe0d

/* A reader that stays failed once it went past the end. */
struct cursor {
	const uint8_t *p, *end;
	bool failed;
};

static size_t take(struct cursor *c, size_t n)
{
	size_t v = 0;
	if ((size_t)(c->end - c->p) < n) {
		c->failed = true;
		return 0;
	}
	while (n--)
		v = v << 8 | *c->p++;
	return v;
}

/* A vector with a length of n bytes before it. */
static struct cursor take_vector(struct cursor *c, size_t n)
{
	size_t len = take(c, n);
	if (c->failed || (size_t)(c->end - c->p) < len) {
		c->failed = true;
		return (struct cursor){.p = c->end, .end = c->end, .failed = true};
	}
	struct cursor v = {.p = c->p, .end = c->p + len};
	c->p += len;
	return v;
}

static void set_name(struct pf_sniff *out, const char *name, size_t len)
{
	out->has_name = true;
	if (pf_name_normal(name, len, out->name))
		return;
	/* No host name, for the log, and for denials: to somebody it may be one in whose place it stands. */
	if (len > 1 && name[len - 1] == '.')
		len--;
	bool cut = len >= sizeof(out->name);
	if (cut)
		len = sizeof(out->name) - 1;
	for (size_t i = 0; i < len; i++)
		out->name[i] = name[i] <= ' ' || name[i] >= 0x7f  ? '?'
			       : name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] | 0x20)
								  : name[i];
	/* A beginning is none either. */
	if (cut)
		out->name[len - 1] = '?';
	out->name[len] = '\0';
}

/* false: malformed. */
static bool read_server_name(struct cursor ext, struct pf_sniff *out)
{
	struct cursor list = take_vector(&ext, 2);
	while (!list.failed && list.p < list.end) {
		size_t type = take(&list, 1);
		struct cursor name = take_vector(&list, 2);
		if (list.failed || type != 0 || out->has_name || name.p == name.end)
			return false;
		set_name(out, (const char *)name.p, (size_t)(name.end - name.p));
	}
	return !list.failed && !ext.failed && ext.p == ext.end;
}

static bool read_client_hello(struct cursor c, struct pf_sniff *out)
{
	bool sni_seen = false;

	take(&c, 2 + 32);   /* version, random */
	take_vector(&c, 1); /* session id */
	take_vector(&c, 2); /* cipher suites */
	take_vector(&c, 1); /* compression */
	if (!c.failed && c.p == c.end)
		return true; /* no extensions: an old client without SNI */
	struct cursor exts = take_vector(&c, 2);
	while (!exts.failed && exts.p < exts.end) {
		size_t type = take(&exts, 2);
		struct cursor ext = take_vector(&exts, 2);
		if (exts.failed)
			return false;
		if (type == EXT_ECH)
			out->ech = true;
		if (type == EXT_SERVER_NAME) {
			if (sni_seen || !read_server_name(ext, out))
				return false;
			sni_seen = true;
		}
	}
	return !c.failed && !exts.failed && c.p == c.end;
}

/* The ClientHello may be spread over records; it is put together in place of the caller's bytes only when it
 * is complete, so each call costs one pass over the record headers. */
static enum pf_sniff_kind sniff_tls(const uint8_t *data, size_t len, struct pf_sniff *out)
{
	uint8_t whole[PF_SNIFF_MAX];
	size_t have = 0, want = 4;

	for (size_t at = 0;;) {
		if (have >= 1 && whole[0] != TLS_CLIENT_HELLO)
			return PF_SNIFF_BAD;
		if (have >= 4) {
			want = 4 + ((size_t)whole[1] << 16 | (size_t)whole[2] << 8 | whole[3]);
			if (want > PF_SNIFF_MAX)
				return PF_SNIFF_BAD;
			if (have >= want)
				break;
		}
		out->need = at + TLS_RECORD_HEADER;
		if (len >= at + 1 && data[at] != TLS_HANDSHAKE)
			return PF_SNIFF_BAD;
		if (len < at + TLS_RECORD_HEADER)
			return PF_SNIFF_MORE;
		size_t rec = (size_t)data[at + 3] << 8 | data[at + 4];
		if (data[at + 1] != 3 || rec == 0 || rec > 16384)
			return PF_SNIFF_BAD;
		at += TLS_RECORD_HEADER;
		size_t got = rec < len - at ? rec : len - at;
		if (got > sizeof(whole) - have)
			return PF_SNIFF_BAD;
		memcpy(whole + have, data + at, got);
		have += got;
		if (got < rec) {
			out->need = at + rec;
			return have >= 1 && whole[0] != TLS_CLIENT_HELLO ? PF_SNIFF_BAD : PF_SNIFF_MORE;
		}
		at += rec;
	}
	struct cursor hello = {.p = whole + 4, .end = whole + want};
	return read_client_hello(hello, out) ? PF_SNIFF_TLS : PF_SNIFF_BAD;
}

static bool is_token_char(uint8_t c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Host without the port. false: malformed. */
static bool set_authority(struct pf_sniff *out, const char *s, size_t len)
{
	const struct pf_sniff before = *out;
	size_t host = len;

	if (memchr(s, '@', len))
		return false;
	if (len && s[0] == '[') {
		const char *end = memchr(s, ']', len);
		if (!end)
			return false;
		host = (size_t)(end - s) + 1;
	} else {
		const char *colon = memchr(s, ':', len);
		if (colon)
			host = (size_t)(colon - s);
	}
	for (size_t i = host; i < len; i++)
		if (i == host ? s[i] != ':' : s[i] < '0' || s[i] > '9')
			return false;
	if (host == 0)
		return false;
	set_name(out, s, host);
	return !before.has_name || strcmp(before.name, out->name) == 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The target of the request line: origin-form says nothing, the others name a host that wins over Host. */
static bool read_target(struct pf_sniff *out, const char *s, size_t len, bool connect)
{
	const char *scheme;

	if (len == 0)
		return false;
	if (connect)
		return set_authority(out, s, len);
	if (s[0] == '/' || (len == 1 && s[0] == '*'))
		return true;
	scheme = memmem(s, len, "://", 3);
	if (!scheme)
		return false;
	const char *host = scheme + 3, *end = host;
	while (end < s + len && *end != '/' && *end != '?' && *end != '#')
		end++;
	return set_authority(out, host, (size_t)(end - host));
}

static bool read_header(struct pf_sniff *out, const char *s, size_t len, bool *host_seen)
{
	size_t name = 0;

	while (name < len && is_token_char((uint8_t)s[name]))
		name++;
	if (name == 0 || name == len || s[name] != ':')
		return false;
	if (name != 4 || strncasecmp(s, "host", 4) != 0)
		return true;
	if (*host_seen)
		return false;
	*host_seen = true;
	s += name + 1;
	len -= name + 1;
	while (len && is_blank(*s))
		s++, len--;
	while (len && is_blank(s[len - 1]))
		len--;
	return set_authority(out, s, len);
}

/* The line at *at without its end; NULL: not complete. *bad: a carriage return or a NUL where none may be. */
static const char *next_line(const char *data, size_t len, size_t *at, size_t *line_len, bool *bad)
{
	const char *line = data + *at, *nl = memchr(line, '\n', len - *at);

	if (!nl)
		return NULL;
	*at = (size_t)(nl - data) + 1;
	*line_len = (size_t)(nl - line);
	if (*line_len && line[*line_len - 1] == '\r')
		--*line_len;
	*bad = memchr(line, '\r', *line_len) || memchr(line, '\0', *line_len);
	return line;
}

/* What some server splits a request line at: Python's take all of these. */
static bool is_wide_blank(char c)
{
	return is_blank(c) || c == '\v' || c == '\f' || (c >= 0x1c && c <= 0x1f) || c == '\x85' ||
	       c == '\xa0';
}

/* The last word of a line without its end. */
static const char *last_word(const char *line, size_t *len, bool (*blank)(char))
{
	const char *end = line + *len, *word;

	while (end > line && blank(end[-1]))
		end--;
	for (word = end; word > line && !blank(word[-1]);)
		word--;
	*len = (size_t)(end - word);
	return word;
}

static bool is_request_line(const char *line, size_t len)
{
	const char *version = last_word(line, &len, is_blank);

	return len >= 5 && strncasecmp(version, "HTTP/", 5) == 0;
}

/* To the most lenient reader: of any words, but then with a version that is one. */
static bool may_be_request_line(const char *line, size_t len)
{
	const char *version = last_word(line, &len, is_wide_blank);

	return len > 5 && strncasecmp(version, "HTTP/", 5) == 0 &&
	       strspn(version + 5, "0123456789.") >= len - 5;
}

/* "GET scheme://host/": HTTP/0.9, which has no Host, and whose servers choose by this one. */
static bool names_host_without_version(const char *line, size_t len)
{
	const char *end = line + len, *scheme;

	while (line < end && is_wide_blank(*line))
		line++;
	if (end - line < 4 || strncasecmp(line, "GET", 3) != 0 || !is_wide_blank(line[3]))
		return false;
	for (line += 3; line < end && is_wide_blank(*line);)
		line++;
	for (scheme = line; line < end && (is_token_char((uint8_t)*line));)
		line++;
	return line > scheme && end - line >= 3 && memcmp(line, "://", 3) == 0;
}

static bool is_proxy_header(const char *line, size_t len)
{
	return len > 6 && memcmp(line, "PROXY ", 6) == 0 &&
	       (memmem(line, len, " TCP4", 5) || memmem(line, len, " TCP6", 5) ||
		       memmem(line, len, " UNKNOWN", 8));
}

/* How a first line begins: as every request does, as one does that a lenient server may see, or as none. */
enum beginning { NO_REQUEST, ODD, PLAIN };

static enum beginning begins(const char *s, size_t len)
{
	size_t word, token;

	for (word = 0; word < len && s[word] > ' ' && s[word] < 0x7f;)
		word++;
	if (word < len && !is_wide_blank(s[word]))
		return s[word] == '\r' || s[word] == '\n' ? ODD : NO_REQUEST;
	for (token = 0; token < word && is_token_char((uint8_t)s[token]);)
		token++;
	return token == word && (word == len || (word && is_blank(s[word]))) ? PLAIN : ODD;
}

/* A first line without its end. Nothing is said of it before it is there, whatever is in it: a server may
 * take a control byte for a blank. But a carriage return inside of it is an end of line to somebody, and no
 * text protocol has one. One that begins oddly is mostly another protocol's, which may have no lines at all;
 * one word without an end may still be a method, and is refused at the limit as any other head. */
static enum pf_sniff_kind open_line(const char *line, size_t len, bool odd)
{
	const char *cr = memchr(line, '\r', len);

	if (odd || !(memchr(line, ' ', len) || memchr(line, '\t', len)))
		return memchr(line, '\0', len) || (odd && len >= PF_SNIFF_MAX) ? PF_SNIFF_OPAQUE
									       : PF_SNIFF_MORE;
	return cr && cr + 1 < line + len ? PF_SNIFF_BAD : PF_SNIFF_MORE;
}

/* What the first line alone says; HTTP: there is a request to be read. */
static enum pf_sniff_kind judge_line(const char *line, size_t len, bool odd, bool bad)
{
	if (!odd && bad && memchr(line, '\r', len))
		return PF_SNIFF_BAD;
	if (odd && memchr(line, '\0', len))
		return PF_SNIFF_OPAQUE;
	if (!odd && is_request_line(line, len))
		return bad ? PF_SNIFF_BAD : PF_SNIFF_HTTP;
	return may_be_request_line(line, len) || names_host_without_version(line, len) ||
			       is_proxy_header(line, len)
		       ? PF_SNIFF_BAD
		       : PF_SNIFF_OPAQUE;
}

static enum pf_sniff_kind sniff_http(const char *data, size_t len, struct pf_sniff *out)
{
	static const char proxy2[] = "\r\n\r\n\0\r\nQUIT\n";
	size_t at = 0, method, line_len;
	bool bad, host_seen = false;
	const char *line;

	if (len >= sizeof(proxy2) - 1 && memcmp(data, proxy2, sizeof(proxy2) - 1) == 0)
		return PF_SNIFF_BAD;
	/* What is decided of the first bytes holds for all, so nothing behind them is looked at for it. */
	const size_t window = len < PF_SNIFF_MAX ? len : PF_SNIFF_MAX;
	/* Servers skip empty lines before a request. */
	while (at < window && (data[at] == '\r' || data[at] == '\n'))
		at++;
	out->line_open = true;
	if (at && at < window && data[at] == '\0' && len < sizeof(proxy2) - 1 &&
		memcmp(data, proxy2, len) == 0)
		return PF_SNIFF_MORE;
	enum beginning how = begins(data + at, window - at);
	if (how == NO_REQUEST)
		return PF_SNIFF_OPAQUE;

	size_t first = at;
	line = next_line(data, window, &at, &line_len, &bad);
	if (!line)
		return open_line(data + first, window - first, how == ODD);
	out->line_open = false;
	enum pf_sniff_kind kind = judge_line(line, line_len, how == ODD, bad);
	if (kind != PF_SNIFF_HTTP)
		return kind;
	for (method = 0; is_token_char((uint8_t)line[method]);)
		method++;
	if (method == 3 && memcmp(line, "PRI", 3) == 0) {
		out->h2c = true;
		return PF_SNIFF_HTTP;
	}
	const char *target = line + method, *end = line + line_len;
	while (is_blank(end[-1]))
		end--;
	while (!is_blank(end[-1]))
		end--;
	while (target < end && is_blank(*target))
		target++;
	while (end > target && is_blank(end[-1]))
		end--;
	if (!read_target(out, target, (size_t)(end - target), method == 7 && memcmp(line, "CONNECT", 7) == 0))
		return PF_SNIFF_BAD;
	while ((line = next_line(data, len, &at, &line_len, &bad))) {
		if (bad)
			return PF_SNIFF_BAD;
		if (line_len == 0) {
			out->head_len = at;
			return PF_SNIFF_HTTP;
		}
		if (!read_header(out, line, line_len, &host_seen))
			return PF_SNIFF_BAD;
	}
	return PF_SNIFF_MORE;
}

void pf_sniff(const uint8_t *data, size_t len, struct pf_sniff *out)
{
	*out = (struct pf_sniff){.need = len + 1};
	if (len == 0)
		return;
	/* Any TLS record type: servers have been known to skip an alert before the hello. */
	if (data[0] >= 20 && data[0] <= 23) {
		if (len < 2)
			return;
		out->kind = data[1] == 3 ? sniff_tls(data, len, out) : PF_SNIFF_OPAQUE;
	} else {
		out->kind = sniff_http((const char *)data, len, out);
	}
	if (out->kind == PF_SNIFF_MORE && (len >= PF_SNIFF_MAX || out->need > PF_SNIFF_MAX))
		out->kind = PF_SNIFF_BAD;
}
