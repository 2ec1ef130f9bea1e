/* checkpoint encryption, checkpoint rotate-key, and the helper's own manifest-open: what is about keys. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "checkpoint/heavy.h"
#include "checkpoint/keys.h"
#include "checkpoint/packs.h"
#include "checkpoint/seal.h"
#include "checkpoint/sealing.h"
#include "cmd/pinfold-store/checkpoint.h"
#include "cmd/pinfold-store/verbs.h"

const char pf_encryption_help[] =
	"[--key SPEC] [--default yes|no]   show how this store encrypts, or set it\n"
	"\n"
	"  --key SPEC         where the key comes from: file:PATH, cmd:COMMAND or keyring:NAME; it is\n"
	"                     fetched once, to see that it fits\n"
	"  --default yes|no   whether new checkpoints are encrypted without --encrypt\n";
const char pf_rotate_help[] =
	"--new-key SPEC [--key SPEC]   wrap the store's data keys under another key\n"
	"\n"
	"No data is rewritten. The old key is the store's own, or --key. If the store names\n"
	"its key, it names the new one afterwards. When it is cut short, do it again.\n";

static void print_json(const cJSON *j)
{
	PF_FREE char *text = pf_json_text(j);

	puts(text);
}

/* The plaintext of a sealed manifest, for pinfold, which has no cipher. */
int pf_cmd_manifest_open(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_FREE char *text = NULL;
	struct pf_digest d;
	char path[96];
	size_t len = 0;
	bool sealed;

	if (argc != 2 || !pf_digest_ok(argv[1]))
		return pf_store_usage("manifest-open", "DIGEST   print a sealed manifest (internal)");
	memcpy(d.s, argv[1], sizeof(d.s));
	if (pf_ckpt_heavy_open(pf_store.store, false, false, &h, &err) < 0 ||
		pf_ckpt_heavy_read(&h, "manifest", pf_digest_hex(&d), pf_ckpt_manifest_path(&d, path),
			PF_CKPT_MAX_DOC, &text, &len, &sealed, &err) < 0)
		return pf_store_error(NULL, &err);
	fwrite(text, 1, len, stdout);
	return 0;
}

/* Store the setting, after the key has shown that it opens (or has made) the sealed domain. */
static int set_sealing(int storefd, const char *key, const char *by_default, struct pf_err *err)
{
	PF_CLOSE int lock = pf_ckpt_lock(storefd, err);
	PF_SEALING struct pf_sealing s = {0};
	PF_SEAL struct pf_seal *seal = NULL;
	const struct pf_kek *kek;

	if (lock < 0 || pf_sealing_read(storefd, &s, err) < 0)
		return -1;
	if (key && pf_starts_with(key, "fd:"))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"a descriptor cannot be remembered: file:PATH, cmd:COMMAND or keyring:NAME");
	if (key) {
		if (!(kek = pf_ckpt_key(storefd, err)) || pf_seal_open(storefd, kek, true, &seal, err) < 0)
			return -1;
		free(s.key);
		s.key = pf_strdup(key);
	}
	if (by_default)
		s.by_default = strcmp(by_default, "yes") == 0;
	if (s.by_default && !s.key)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "--default yes needs a --key that the store can name");
	return pf_sealing_write(storefd, &s, err);
}

int pf_cmd_checkpoint_encryption(int argc, char **argv)
{
	static const struct option options[] = {
		{"key", required_argument, NULL, 'k'}, {"default", required_argument, NULL, 'd'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	PF_SEALING struct pf_sealing s = {0};
	const char *key = NULL, *by_default = NULL;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint encryption", argc, argv, options)) != -1) {
		if (c == '?')
			return 125;
		*(c == 'k' ? &key : &by_default) = optarg;
	}
	if (optind != argc || (by_default && strcmp(by_default, "yes") != 0 && strcmp(by_default, "no") != 0))
		return pf_store_usage("checkpoint encryption", pf_encryption_help);
	if (key) {
		if (pf_kek_check_spec(key, &err) < 0)
			return pf_store_error("checkpoint encryption", &err);
		pf_ckpt_use_key(key, -1);
	}
	PF_CLOSE int storefd = pf_ckpt_store_open(pf_store.store, key || by_default, &err);
	if (storefd < 0 || ((key || by_default) && set_sealing(storefd, key, by_default, &err) < 0) ||
		pf_sealing_read(storefd, &s, &err) < 0)
		return pf_store_error("checkpoint encryption", &err);
	PF_JSON cJSON *j = cJSON_CreateObject();
	cJSON_AddBoolToObject(j, "used", pf_seal_exists(storefd));
	cJSON_AddItemToObject(j, "key", s.key ? cJSON_CreateString(s.key) : cJSON_CreateNull());
	cJSON_AddBoolToObject(j, "default", s.by_default);
	print_json(j);
	return 0;
}

static int rotate(const char *new_key, cJSON *out, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(pf_store.store, false, err);
	PF_SEALING struct pf_sealing s = {0};
	PF_KEK struct pf_kek *fresh = NULL;
	struct pf_seal_rotated stats;
	const struct pf_kek *old;

	if (storefd < 0 || pf_sealing_read(storefd, &s, err) < 0 || !(old = pf_ckpt_key(storefd, err)) ||
		pf_kek_load(new_key, &fresh, err) < 0)
		return -1;
	if (s.key && pf_starts_with(new_key, "fd:"))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the store names its key, and a descriptor cannot be remembered: file:PATH, "
			"cmd:COMMAND or "
			"keyring:NAME");
	/* In this order, as everybody takes them: packs, store. */
	PF_CLOSE int packs = pf_packs_lock(storefd, true, err);
	PF_CLOSE int lock = packs < 0 ? -1 : pf_ckpt_lock(storefd, err);
	if (lock < 0 || pf_seal_rotate(storefd, old, fresh, &stats, err) < 0)
		return -1;
	if (s.key) {
		free(s.key);
		s.key = pf_strdup(new_key);
		if (pf_sealing_write(storefd, &s, err) < 0)
			return pf_wrap(err, "keys are rotated, but the store still names the old one");
	}
	cJSON_AddStringToObject(out, "old_key", pf_kek_id(old));
	cJSON_AddStringToObject(out, "new_key", pf_kek_id(fresh));
	pf_json_add_int(out, "objects", stats.objects);
	return 0;
}

int pf_cmd_checkpoint_rotate_key(int argc, char **argv)
{
	static const struct option options[] = {
		{"key", required_argument, NULL, 'k'}, {"new-key", required_argument, NULL, 'n'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	PF_JSON cJSON *out = cJSON_CreateObject();
	const char *key = NULL, *new_key = NULL;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint rotate-key", argc, argv, options)) != -1) {
		if (c == '?')
			return 125;
		*(c == 'k' ? &key : &new_key) = optarg;
	}
	if (optind != argc || !new_key)
		return pf_store_usage("checkpoint rotate-key", pf_rotate_help);
	if (key) {
		if (pf_kek_check_spec(key, &err) < 0)
			return pf_store_error("checkpoint rotate-key", &err);
		pf_ckpt_use_key(key, -1);
	}
	if (rotate(new_key, out, &err) < 0)
		return pf_store_error("checkpoint rotate-key", &err);
	print_json(out);
	return 0;
}
