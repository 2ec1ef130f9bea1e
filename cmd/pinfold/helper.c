/* image and checkpoint: verbs of the helper program, started on demand (docs/architecture.md, start-up). */
#include "cmd/pinfold/cmd.h"

int pf_cmd_image(int argc, char **argv)
{
	(void)argc;
	return pf_exec_helper(argv);
}

int pf_cmd_checkpoint(int argc, char **argv)
{
	(void)argc;
	return pf_exec_helper(argv);
}
