/* image and checkpoint: verbs of the helper program, started on demand (docs/architecture.md, start-up). */
#include <string.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"
#include "checkpoint/store.h"
#include "cmd/pinfold/oci.h"
#include "session/session.h"

int pf_open_sealed_manifest(int storefd, const struct pf_digest *digest, const char *sealed,
	size_t sealed_len, char **text, size_t *len, struct pf_err *err)
{
	PF_FREE char *path = pf_helper_path("pinfold-store", err);
	char name[sizeof(digest->s)];

	(void)storefd;
	(void)sealed;
	(void)sealed_len;
	if (!path)
		return -1;
	memcpy(name, digest->s, sizeof(name));
	char *args[] = {
		path, (char *)"--store", (char *)pf_globals.dirs.store, (char *)"manifest-open", name, NULL};
	if (pf_run(args, text, err) < 0)
		return -1;
	*len = strlen(*text);
	return 0;
}

int pf_cmd_image(int argc, char **argv)
{
	(void)argc;
	return pf_exec_helper("pinfold-store", argv);
}

int pf_cmd_checkpoint(int argc, char **argv)
{
	/* runc's verb of that name stops a container's processes and writes them down. */
	for (int i = 1; i < argc; i++)
		if (pf_starts_with(argv[i], "--image-path") || pf_starts_with(argv[i], "--work-path") ||
			(argv[i][0] != '-' && pf_oci_is(argv[i])))
			return pf_cmd_no_checkpoint(argc, argv);
	/* What speaks with registries brings libcurl, and with it thirty libraries. */
	bool moves = argc > 1 && (strcmp(argv[1], "push") == 0 || strcmp(argv[1], "pull") == 0);
	return pf_exec_helper(moves ? "pinfold-registry" : "pinfold-store", argv);
}
