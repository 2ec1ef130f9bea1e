/* image and checkpoint: verbs of the helper program, started on demand (docs/architecture.md, start-up). */
#include "cmd/pinfold/oci.h"

int pf_cmd_image(int argc, char **argv)
{
	(void)argc;
	return pf_exec_helper(argv);
}

int pf_cmd_checkpoint(int argc, char **argv)
{
	/* runc's verb of that name stops a container's processes and writes them down. */
	for (int i = 1; i < argc; i++)
		if (pf_starts_with(argv[i], "--image-path") || pf_starts_with(argv[i], "--work-path") ||
			(argv[i][0] != '-' && pf_oci_is(argv[i])))
			return pf_cmd_no_checkpoint(argc, argv);
	return pf_exec_helper(argv);
}
