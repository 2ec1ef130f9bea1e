/* pinfold-store: started by pinfold for what needs archives, hashes or compression, and by hand for the same.
 *
 *   pinfold-store [--root R] [--store S] [--share D] [--key SPEC] [--log FILE] [--log-format text|json]
 *                 VERB [ARGUMENT]... */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/str.h"
#include "checkpoint/heavy.h"
#include "checkpoint/keys.h"
#include "cmd/pinfold-store/progress.h"
#include "cmd/pinfold-store/verbs.h"
#include "session/log.h"

struct pf_store_globals pf_store = {
	.root = "/run/pinfold", .store = "/var/lib/pinfold", .key = NULL, .share = NULL};

static struct pf_log_to log_to;

static const struct pf_store_verb *const tables[] = {pf_image_verbs, pf_checkpoint_verbs};

int pf_store_error(const char *verb, const struct pf_err *err)
{
	PF_FREE char *msg = pf_asprintf("%s%s%s", verb ? verb : "", verb ? ": " : "", err->msg);

	pf_show_end(); /* the message must not stand behind it */

	pf_log_say(&log_to, "error", msg, pf_err_kind_name(err->kind));
	return 125;
}

static int mistake(const char *what, const char *name)
{
	struct pf_err err = PF_ERR_INIT;

	pf_fail_kind(&err, PF_ERR_INVALID, 0, "%s '%.100s' (there is --help)", what, name);
	return pf_store_error(NULL, &err);
}

int pf_store_getopt(const char *verb, int argc, char **argv, const struct option *options)
{
	const char *names[32], *given;
	struct pf_err err = PF_ERR_INIT;
	char shorts[64] = ":", letter[3];
	size_t n = 1, k = 0;

	for (const struct option *o = options; o->name && n + 3 < sizeof(shorts); o++) {
		if (o->val <= ' ' || o->val >= 127)
			continue;
		shorts[n++] = (char)o->val;
		if (o->has_arg)
			shorts[n++] = ':';
	}
	shorts[n] = '\0';
	opterr = 0;
	int c = getopt_long(argc, argv, shorts, options, NULL);
	if (c != '?' && c != ':')
		return c;
	/* One of several letters behind one dash is not what stands at optind. */
	snprintf(letter, sizeof(letter), "-%c", optopt);
	given = c == '?' && optopt > ' ' && optopt < 127 ? letter : argv[optind - 1];
	for (const struct option *o = options; o->name && k < 31; o++)
		names[k++] = o->name;
	names[k] = NULL;
	const char *near = c == '?' && pf_starts_with(given, "--") ? pf_nearest(given + 2, names) : NULL;
	if (c == ':')
		pf_fail_kind(&err, PF_ERR_INVALID, 0, "option %s needs a value", given);
	else
		pf_fail_kind(&err, PF_ERR_INVALID, 0, "unknown option %s%s%s%s", given,
			near ? ": did you mean --" : "", near ? near : "", near ? "?" : "");
	(void)pf_store_error(verb, &err);
	return '?';
}

int pf_store_usage(const char *verb, const char *help)
{
	struct pf_err err = PF_ERR_INIT;
	const char *what = strstr(help, "   ");

	pf_fail_kind(&err, PF_ERR_INVALID, 0, "usage: pinfold %s %.*s", verb,
		what ? (int)(what - help) : (int)strlen(help), help);
	return pf_store_error(NULL, &err);
}

static void usage(FILE *f)
{
	fputs("usage: pinfold-store [--root DIR] [--store DIR] [--share DIR] [--key SPEC] [--log FILE] "
	      "[--log-format text|json] VERB ...\n\n",
		f);
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct pf_store_verb *v = tables[t]; v->name; v++)
			fprintf(f, "  %s %.*s\n", v->name, (int)strcspn(v->help, "\n"), v->help);
}

/* Whether the verb is one of those that begin with this word; its rest then, else NULL. */
static const char *in_group(const struct pf_store_verb *v, const char *word)
{
	size_t n = strlen(word);

	return strncmp(v->name, word, n) == 0 && v->name[n] == ' ' ? v->name + n + 1 : NULL;
}

/* The verbs that begin with this word. False when there are none. */
static bool group_help(const char *word, FILE *f)
{
	bool any = false;

	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct pf_store_verb *v = tables[t]; v->name; v++) {
			const char *rest = in_group(v, word);
			if (!rest)
				continue;
			if (!any)
				fprintf(f, "usage: pinfold %s VERB ...\n\n", word);
			any = true;
			fprintf(f, "  %s %.*s\n", rest, (int)strcspn(v->help, "\n"), v->help);
		}
	return any;
}

static int verb_help(const struct pf_store_verb *v)
{
	const char *what = strstr(v->help, "   ");

	printf("usage: pinfold %s %.*s\n", v->name, what ? (int)(what - v->help) : (int)strlen(v->help),
		v->help);
	if (what)
		printf("\n%s\n", what + 3);
	return 0;
}

static bool asks_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

/* How many words of argv are this verb's name; 0 when it is another. */
static int matches(const char *name, int argc, char **argv)
{
	const char *space = strchr(name, ' ');

	if (!space)
		return argc >= 1 && strcmp(name, argv[0]) == 0;
	size_t n = (size_t)(space - name);
	return argc >= 2 && strlen(argv[0]) == n && strncmp(name, argv[0], n) == 0 &&
			       strcmp(space + 1, argv[1]) == 0
		       ? 2
		       : 0;
}

static int dispatch(int argc, char **argv)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (const struct pf_store_verb *v = tables[t]; v->name; v++) {
			int words = matches(v->name, argc, argv);
			if (words > 0 && asks_help(argc - words, argv + words))
				return verb_help(v);
			if (words > 0)
				return v->fn(argc - words + 1, argv + words - 1);
		}
	}
	if (argc > 1 && asks_help(1, argv + 1) && group_help(argv[0], stdout))
		return 0;
	if (argc == 1 && !log_to.json && group_help(argv[0], stderr))
		return 125;
	PF_FREE char *both = pf_asprintf("%s%s%s", argv[0], argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
	return mistake("unknown verb", both);
}

/* The key that was named, and whether to seal what is made: from pinfold by way of the environment, where the
 * names of keys may stand and keys may not. */
static int use_key(struct pf_err *err)
{
	const char *seal = getenv("PINFOLD_ENCRYPT"), *decrypt = getenv("PINFOLD_DECRYPT");
	int seal_new = -1;

	if (!pf_store.key)
		pf_store.key = getenv("PINFOLD_KEY");
	if (pf_store.key && !*pf_store.key)
		pf_store.key = NULL;
	if (pf_store.key && pf_kek_check_spec(pf_store.key, err) < 0)
		return -1;
	pf_store.decrypt = decrypt && strcmp(decrypt, "yes") == 0;
	if (seal && *seal) {
		if (strcmp(seal, "yes") != 0 && strcmp(seal, "no") != 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "PINFOLD_ENCRYPT must be 'yes' or 'no'");
		seal_new = strcmp(seal, "yes") == 0;
	}
	pf_ckpt_use_key(pf_store.key, seal_new);
	pf_ckpt_open_manifest = pf_ckpt_heavy_open_manifest;
	return 0;
}

static int global_option(char **argv, int *i)
{
	const struct {
		const char *name;
		const char **slot;
	} options[] = {{"--root", &pf_store.root}, {"--store", &pf_store.store}, {"--share", &pf_store.share},
		{"--log", &log_to.file}, {"--key", &pf_store.key}};
	const char *value;

	for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++) {
		size_t n = strlen(options[k].name);
		if (strncmp(argv[*i], options[k].name, n) != 0 || (argv[*i][n] && argv[*i][n] != '='))
			continue;
		value = argv[*i][n] == '=' ? argv[*i] + n + 1 : argv[++*i];
		if (!value || !*value)
			return -1;
		*options[k].slot = value;
		return 0;
	}
	if (strcmp(argv[*i], "--log-format") == 0 && argv[*i + 1]) {
		log_to.json = strcmp(argv[++*i], "json") == 0;
		return log_to.json || strcmp(argv[*i], "text") == 0 ? 0 : -1;
	}
	return -1;
}

/* What was printed and could not be written is a failure, whatever the verb did. */
static int finish_output(int code)
{
	struct pf_err err = PF_ERR_INIT;
	bool bad = fflush(stdout) == EOF;

	if (!bad && !ferror(stdout))
		return code;
	pf_fail(&err, bad ? errno : 0, "standard output cannot be written");
	(void)pf_store_error(NULL, &err);
	return code ? code : 125;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	int i = 1;

	if (argc > 3 && strcmp(argv[1], "remove-behind") == 0) {
		pf_guard_remove(atoi(argv[2]), argv + 3);
		return 0;
	}
	pf_guard_begin("/proc/self/exe");
	/* What a caller hands down must not count: see pinfold's own main(). */
	(void)signal(SIGCHLD, SIG_DFL);
	umask(022);
	/* A reader that went away is an error to report, not a silent end that leaves work half done. */
	signal(SIGPIPE, SIG_IGN);
	/* Trees are walked by descriptors, one per level. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			usage(stdout);
			return finish_output(0);
		}
		const char *option = argv[i];
		if (global_option(argv, &i) < 0)
			return mistake("unknown option or missing value:", option);
	}
	if (i >= argc && log_to.json)
		return mistake("no verb given to", "pinfold-store");
	if (i >= argc) {
		usage(stderr);
		return 125;
	}
	struct pf_err err = PF_ERR_INIT;
	if (use_key(&err) < 0)
		return pf_store_error(NULL, &err);
	return finish_output(dispatch(argc - i, argv + i));
}
