/* The buffer of a connection's first bytes. It is there for a moment only, at the beginning of each: were it
 * taken from the heap every time, it would leave a hole of its size between connections that stay. So a few
 * are kept and used again, and who has said next to nothing, which may be for hours, keeps next to nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "netpolicy/relay_priv.h"

#define HEAD_FIRST ((size_t)2 << 10)
#define HEAD_SMALL ((size_t)64)

void pf_conn_drop_head(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;

	if (c->head_cap == HEAD_FIRST && g->n_spare_heads < PF_GATE_SPARE_HEADS)
		g->spare_heads[g->n_spare_heads++] = c->head;
	else
		free(c->head);
	c->head = NULL;
	c->head_len = c->head_cap = c->head_sent = 0;
}

void pf_conn_grow_head(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;

	if (!c->head && g->n_spare_heads) {
		c->head = g->spare_heads[--g->n_spare_heads];
		c->head_cap = HEAD_FIRST;
		return;
	}
	c->head_cap = c->head_cap ? c->head_cap * 2 : HEAD_FIRST;
	uint8_t *more = realloc(c->head, c->head_cap);
	if (!more)
		abort();
	c->head = more;
}

void pf_conn_fit_head(struct pf_conn *c)
{
	size_t len = c->head_len, sent = c->head_sent;

	if (!c->head || len > HEAD_SMALL || c->head_cap <= HEAD_SMALL)
		return;
	uint8_t *small = len ? pf_calloc(1, HEAD_SMALL) : NULL;
	if (small)
		memcpy(small, c->head, len);
	pf_conn_drop_head(c);
	c->head = small;
	c->head_cap = small ? HEAD_SMALL : 0;
	c->head_len = len;
	c->head_sent = sent;
}

void pf_heads_close(struct pf_gate *g)
{
	while (g->n_spare_heads)
		free(g->spare_heads[--g->n_spare_heads]);
}
