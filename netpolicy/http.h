/* HTTP/1 messages one after another on a connection: where each begins and ends, and its head line by line.
 */
#ifndef PF_NETPOLICY_HTTP_H
#define PF_NETPOLICY_HTTP_H

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One direction of a connection. Framing (lengths, chunks, what has no body) is http_parser's; what a head
 * says is read by this program's own stricter rules, so a message must satisfy both. */
struct pf_http {
	http_parser parser;
	bool done;        /* the message is complete */
	bool until_close; /* a response without a length: it ends with the connection */
	bool upgrade;     /* a request that asks for another protocol, or CONNECT; a response that switches */
	bool keep_alive;  /* another message may follow */
};

/* Length of the head at the start of data, its empty line included; 0: it is not complete. */
size_t pf_http_head_len(const char *data, size_t len);

/* Begin a message with its complete head. -1: malformed, or framed in a way that two readers may see
 * differently. */
int pf_http_request(struct pf_http *h, const char *head, size_t len);
/* no_body: the answer to HEAD, or a success of CONNECT. Responses of class 1 but 101 are complete at once and
 * another follows. */
int pf_http_response(struct pf_http *h, const char *head, size_t len, bool no_body);

/* Bytes of data that belong to the message's body, framing included; h->done tells whether it is complete.
 * -1: malformed. */
ssize_t pf_http_body(struct pf_http *h, const char *data, size_t len);

/* The same; what the body is without its framing goes to sink. */
typedef void (*pf_http_sink)(void *arg, const char *data, size_t len);
ssize_t pf_http_body_to(struct pf_http *h, const char *data, size_t len, pf_http_sink sink, void *arg);

/* One line of a head. */
struct pf_http_line {
	const char *name, *value; /* not terminated; of the first line name is all of it and value NULL */
	size_t name_len, value_len;
};
/* Iterate: *at begins at 0. false: the head has ended. Only for heads that pf_sniff or pf_http_request took.
 */
bool pf_http_next(const char *head, size_t len, size_t *at, struct pf_http_line *line);
bool pf_http_is(const struct pf_http_line *line, const char *name);
/* Make a request that asks to go on in HTTP/2 without TLS, which every Java client does, ask for what no
 * server knows: behind a server's yes, requests for any host would come that nobody sees. */
void pf_http_hide_h2c(char *head, size_t len);

#endif
