#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "cmd/pinfold/cmd.h"
#include "cmd/pinfold/oci.h"
#include "session/session.h"

static const char help[] =
	"create ID [options]\n\n"
	"Makes and starts the sandbox ID and prints its state as one JSON object.\n\n"
	"  --config FILE         sandbox file ('-': standard input); see docs/sandbox-file.md\n"
	"  --image REF           image: host, a name in the store, or a root directory\n"
	"  --from CHECKPOINT     start from a checkpoint: a digest, a name, `latest` of this id, or one in "
	"a\n"
	"                        registry, HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:…\n"
	"  --credentials FILE    where secrets come from and which hosts they are for (default:\n"
	"                        credentials.json in the store, or /etc/pinfold/credentials.json)\n"
	"  --reuse               if ID exists: take it, resumed when paused, started again when stopped\n"
	"  --strict-runtime      a runtime version that is not there is an error, not the nearest newer one\n"
	"  --rebase              accept a checkpoint made on another version of the image\n"
	"  --trust               let the sandbox file of a checkpoint that was imported or pulled have "
	"mounts,\n"
	"                        credentials and the network: who made it may then do what you may\n"
	"\nWith --bundle DIR: makes an OCI container, see `pinfold create --bundle . --help`.\n";

/* An OCI runtime is always told where the bundle is; a session has none. */
static bool names_bundle(char *const *argv)
{
	for (argv++; *argv; argv++)
		if (strcmp(*argv, "-b") == 0 || strcmp(*argv, "--bundle") == 0 ||
			pf_starts_with(*argv, "--bundle="))
			return true;
	return false;
}

/* A checkpoint in a registry, "HOST/REPOSITORY:TAG" or "…@sha256:…", is fetched first; names in the store
 * have no slash. *digest is malloc'ed. */
static int pull_first(const char *ref, char **digest, struct pf_err *err)
{
	PF_FREE char *helper = pf_helper_path("pinfold-registry", err), *out = NULL;

	if (!helper)
		return -1;
	char *args[] = {helper, (char *)"--store", (char *)pf_globals.dirs.store, (char *)"checkpoint",
		(char *)"pull", (char *)"--json", (char *)ref, NULL};
	if (pf_run_tied(args, &out, err) < 0)
		return -1;
	PF_JSON cJSON *j = cJSON_Parse(out);
	const char *d = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "checkpoint"));
	if (!d)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: it is no checkpoint", ref);
	*digest = pf_strdup(d);
	return 0;
}

int pf_cmd_create(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
		{"image", required_argument, NULL, 'i'}, {"from", required_argument, NULL, 'f'},
		{"reuse", no_argument, NULL, 'r'}, {"strict-runtime", no_argument, NULL, 1},
		{"rebase", no_argument, NULL, 2}, {"credentials", required_argument, NULL, 3},
		{"trust", no_argument, NULL, 4}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct pf_create_opts opts = {0};
	struct pf_err err = PF_ERR_INIT;
	struct pf_state state;
	bool existed;
	int c;

	if (names_bundle(argv))
		return pf_oci_create(argc, argv);
	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		switch (c) {
		case 'c':
			opts.config_path = optarg;
			break;
		case 'i':
			opts.image = optarg;
			break;
		case 'f':
			opts.from = optarg;
			break;
		case 'r':
			opts.reuse = true;
			break;
		case 1:
			opts.strict_runtime = true;
			break;
		case 2:
			opts.rebase = true;
			break;
		case 3:
			opts.credentials = optarg;
			break;
		case 4:
			opts.trust = true;
			break;
		default:
			break;
		}
	}
	if (optind + 1 != argc)
		return pf_usage("create", optind == argc ? "needs an ID" : "takes one ID");
	PF_FREE char *pulled = NULL;
	if (opts.from && strchr(opts.from, '/')) {
		if (pull_first(opts.from, &pulled, &err) < 0) {
			pf_wrap(&err, "create");
			return pf_report(&err);
		}
		opts.from = pulled;
	}
	if (pf_session_create(&pf_globals.dirs, argv[optind], &opts, &state, &existed, &err) < 0) {
		pf_wrap(&err, "create");
		return pf_report(&err);
	}
	for (char **w = state.warnings; !existed && w && *w; w++)
		pf_warn("%s", *w);
	cJSON *j = pf_state_json(&state);
	if (existed)
		cJSON_AddTrueToObject(cJSON_GetObjectItemCaseSensitive(j, "pinfold"), "reused");
	pf_print_json(j);
	pf_state_done(&state);
	PF_FREE char *done = pf_asprintf("create: sandbox '%s' is there", argv[optind]);
	return pf_finish_output(0, done);
}
