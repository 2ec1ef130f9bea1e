/* Sessions with servers that were verified a moment ago, so that the next connection to the same one need not
 * verify it again: that is most of what a handshake costs here.
 *
 * A session is for the name and port that it was made for, and OpenSSL refuses it for another (its context is
 * their hash). It is used once, as the protocol advises: whoever sees two connections cannot tell by the
 * ticket that they belong together. Five minutes after its server was verified it is forgotten, and what came
 * of it too; and with every new policy, which may trust other authorities. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/pinfold-tls/tls.h"

#define PLACES 64
#define KEEP_S 300

static struct kept {
	SSL_SESSION *session;
	int64_t verified; /* when its server was */
} kept[PLACES];

static int64_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void forget(struct kept *k)
{
	SSL_SESSION_free(k->session);
	*k = (struct kept){0};
}

static struct kept *place(const unsigned char *context)
{
	return &kept[context[0] % PLACES];
}

/* OpenSSL has verified the server; when, resume_offer has noted: a ticket may come as late as it likes. 1:
 * the session is ours. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
	unsigned int len;
	const unsigned char *context = SSL_SESSION_get0_id_context(session, &len);

	if (len != SSL_MAX_SID_CTX_LENGTH || SSL_get_verify_result(ssl) != X509_V_OK)
		return 0;
	struct kept *k = place(context);
	forget(k);
	*k = (struct kept){.session = session, .verified = (int64_t)(intptr_t)SSL_get_app_data(ssl)};
	return 1;
}

void resume_enable(SSL_CTX *ctx)
{
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, on_session);
}

int resume_offer(SSL *ssl, const char *name, uint16_t port)
{
	unsigned char context[EVP_MAX_MD_SIZE];
	char text[PF_NAME_MAX + 8];
	unsigned int len;

	snprintf(text, sizeof(text), "%s:%u", name, port);
	if (EVP_Digest(text, strlen(text), context, &len, EVP_sha256(), NULL) != 1 ||
		SSL_set_session_id_context(ssl, context, SSL_MAX_SID_CTX_LENGTH) != 1)
		return -1;
	struct kept *k = place(context);
	if (k->session && now_s() - k->verified > KEEP_S)
		forget(k);
	const unsigned char *had = k->session ? SSL_SESSION_get0_id_context(k->session, &len) : NULL;
	if (!had || len != SSL_MAX_SID_CTX_LENGTH || memcmp(had, context, len) != 0)
		return SSL_set_app_data(ssl, (char *)(intptr_t)now_s()) == 1 ? 0 : -1;
	int r = SSL_set_session(ssl, k->session) == 1 &&
				SSL_set_app_data(ssl, (char *)(intptr_t)k->verified) == 1
			? 0
			: -1;
	forget(k);
	return r;
}

void resume_forget(void)
{
	for (size_t i = 0; i < PLACES; i++)
		forget(&kept[i]);
}
