/* snapshot, fork, diff. */
#include "cmd/pinfold/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "cmd/pinfold/cmd.h"
#include "cmd/pinfold/oci.h"
#include "session/ocisnap.h"
#include "session/session.h"
#include "session/snapshot.h"

/* Of a container that an engine made. The lock: it shall not be deleted meanwhile. */
static cJSON *snapshot_oci(
	const char *id, const char *image, const char *name, const cJSON *labels, struct pf_err *err)
{
	PF_OCI struct pf_oci h = PF_OCI_INIT;

	return pf_oci_open(id, true, &h, err) < 0
		       ? NULL
		       : pf_oci_snapshot(&pf_globals.dirs, h.dir, &h.c, image, name, labels, err);
}

cJSON *pf_snapshot(
	const char *id, const char *image, const char *name, char *const *labels, struct pf_err *err)
{
	PF_JSON cJSON *l = cJSON_CreateObject();

	for (; labels && *labels; labels++) {
		const char *eq = strchr(*labels, '=');
		if (!eq || eq == *labels) {
			pf_fail_kind(err, PF_ERR_INVALID, 0, "--label: '%.64s' is not KEY=VALUE", *labels);
			return NULL;
		}
		if (pf_starts_with(*labels, "io.pinfold")) {
			pf_fail_kind(err, PF_ERR_INVALID, 0,
				"--label: '%.64s': keys from io.pinfold on are Pinfold's own", *labels);
			return NULL;
		}
		PF_FREE char *key = strndup(*labels, (size_t)(eq - *labels));
		cJSON_DeleteItemFromObjectCaseSensitive(l, key);
		cJSON_AddStringToObject(l, key, eq + 1);
	}
	if (pf_oci_is(id))
		return snapshot_oci(id, image, name, l, err);
	if (image) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "--image: the image of session '%s' is known", id);
		return NULL;
	}
	return pf_session_snapshot(&pf_globals.dirs, id, name, l, err);
}

int pf_cmd_snapshot(int argc, char **argv)
{
	static const struct option options[] = {{"name", required_argument, NULL, 'n'},
		{"label", required_argument, NULL, 'l'}, {"image", required_argument, NULL, 'i'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] =
		"snapshot ID [--name N] [--label K=V]… [--image REF] [--encrypt|--no-encrypt] [--key "
		"SPEC]\n\n"
		"Makes a checkpoint of the sandbox's files, while it runs or after it has stopped, and\n"
		"prints {checkpoint, name, parent, frozen_ms, bytes_new, …}. A running sandbox is stopped\n"
		"only for frozen_ms. ID may be an OCI container whose root is an overlay mount; --image "
		"says\n"
		"then which image of Pinfold's store is the one below.\n\n"
		"  --encrypt      encrypt it, whether the store does so by itself or not\n"
		"  --key SPEC     with the key from file:PATH, fd:N, cmd:COMMAND or keyring:NAME rather "
		"than\n"
		"                 the store's own (pinfold checkpoint encryption)\n";
	const char *name = NULL, *image = NULL;
	struct pf_err err = PF_ERR_INIT;
	char **labels = pf_calloc((size_t)argc + 1, sizeof(*labels));
	size_t n = 0;
	int c;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		if (c == 'n')
			name = optarg;
		if (c == 'i')
			image = optarg;
		if (c == 'l')
			labels[n++] = optarg;
	}
	if (optind + 1 != argc) {
		free(labels);
		return pf_usage("snapshot", "takes one ID");
	}
	cJSON *result = pf_snapshot(argv[optind], image, name, labels, &err);
	free(labels);
	if (!result) {
		pf_wrap(&err, "snapshot");
		return pf_report(&err);
	}
	const cJSON *digest = cJSON_GetObjectItemCaseSensitive(result, "checkpoint");
	PF_FREE char *done = pf_asprintf(
		"snapshot: checkpoint %s is made", cJSON_IsString(digest) ? digest->valuestring : "");
	pf_print_json(result);
	return pf_finish_output(0, done);
}

int pf_cmd_fork(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
		{"trust", no_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] =
		"fork CHECKPOINT ID… [--config FILE] [--trust]\n\n"
		"Makes a sandbox of each ID from one checkpoint; they share every byte until they write.\n"
		"The sandbox file is the one that the checkpoint remembers, unless --config; --trust as in "
		"create.\n";
	struct pf_create_opts opts = {0};
	int c, code = 0;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1)
		if (c == 'c')
			opts.config_path = optarg;
		else if (c == 't')
			opts.trust = true;
	if (argc - optind < 2)
		return pf_usage("fork", "needs a CHECKPOINT and at least one ID");
	opts.from = argv[optind];
	if (strcmp(opts.from, "latest") == 0)
		return pf_usage("fork",
			"'latest' is the newest of one id; name the checkpoint (pinfold checkpoint ls)");
	for (int i = optind + 1; i < argc && code == 0; i++) {
		struct pf_err err = PF_ERR_INIT;
		struct pf_state state;
		bool existed;
		if (pf_session_create(&pf_globals.dirs, argv[i], &opts, &state, &existed, &err) < 0) {
			pf_wrap(&err, "fork");
			code = pf_report(&err);
			continue;
		}
		pf_print_json(pf_state_json(&state));
		pf_state_done(&state);
		PF_FREE char *done = pf_asprintf("fork: sandbox '%s' is there", argv[i]);
		code = pf_finish_output(0, done);
	}
	return code;
}

int pf_cmd_diff(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
		{"stat", no_argument, NULL, 's'}, {"name-only", no_argument, NULL, 'n'},
		{"unified", required_argument, NULL, 'U'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	static const char help[] =
		"diff A [B] [--unified N | --stat | --name-only | --json]\n\n"
		"What was added, changed and deleted from A to B: texts as a unified diff, which patch -p1\n"
		"and git apply take. A and B are checkpoints or ids of sandboxes (their files as they are\n"
		"now). With A alone: against its image.\n\n"
		"  -U, --unified N   N equal lines around each change (3)\n"
		"  --stat            a line for each name with the change in size, and the sum\n"
		"  --name-only       the paths\n"
		"  --json            one object with everything but the texts\n";
	struct pf_err err = PF_ERR_INIT;
	const char *style = NULL, *context = NULL;
	char *pass[9] = {NULL};
	size_t n = 0;
	int c;

	if (pf_globals.log.json) {
		pass[n++] = (char *)"--log-format";
		pass[n++] = (char *)"json";
	}
	if (pf_globals.log.file) {
		pass[n++] = (char *)"--log";
		pass[n++] = (char *)pf_globals.log.file;
	}
	pass[n++] = (char *)"diff";
	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		if (c == 'U')
			context = optarg;
		else
			style = c == 'j' ? "--json" : c == 's' ? "--stat" : "--name-only";
	}
	if (style)
		pass[n++] = (char *)style;
	if (context) {
		pass[n++] = (char *)"--unified";
		pass[n++] = (char *)context;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return pf_usage("diff", "takes one or two of checkpoint and ID");
	pf_session_diff(
		&pf_globals.dirs, argv[optind], optind + 1 < argc ? argv[optind + 1] : NULL, pass, &err);
	pf_wrap(&err, "diff");
	return pf_report(&err);
}
