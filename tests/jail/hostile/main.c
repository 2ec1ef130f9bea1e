/* Theory of operation: programs that try what an exploit tries first.
 *
 * One static program, so that it runs in whatever a sandbox shows of the machine; the first argument says
 * which attack. It prints "begun", so that a sandbox that failed to start is not taken for one that stopped
 * something, and then exactly one verdict:
 *
 *   let through: EVIDENCE        it has something in its hands that it should not have
 *   stopped: WHY
 *
 * The evidence is a fact and not the success of a call: the secret itself, a value that the kernel computed.
 * Where the fact lies outside (a file that appeared, a process that died) the verdict here is "let through:
 * tried", and scripts/compare-jail, which sets the stage and knows the secrets, goes and looks. Nothing here
 * does harm where it is run bare: it reads, writes and kills only what was put there for it. */
#include "tests/jail/hostile/hostile.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	int n_args;
	attack_fn *run;
} attacks[] = {
	{"ssh-key", 1, read_key},
	{"environment", 1, read_environment},
	{"other-environ", 1, read_environments},
	{"keyring", 1, read_keyring},
	{"descriptors", 1, open_descriptors},
	{"host-root", 1, leave_the_root},
	{"kernel-log", 0, read_kernel_log},
	{"profile", 1, append_to_profile},
	{"git-hook", 1, plant_hook},
	{"symlink-swap", 1, swap_symlink},
	{"setuid", 2, use_setuid},
	{"runtime", 1, overwrite_runtime},
	{"device", 1, use_device},
	{"sysctl", 0, write_sysctl},
	{"cgroup", 1, write_cgroup},
	{"hostname-time", 0, set_host},
	{"kill", 1, kill_process},
	{"ptrace", 2, trace_process},
	{"tiocsti", 1, type_ahead},
	{"outlive", 0, outlive},
	{"fork-bomb", 1, fork_bomb},
	{"memory", 1, use_memory},
	{"disk", 1, fill_disk},
	{"loopback", 1, connect_loopback},
	{"host-sockets", 2, connect_unix},
	{"dns", 1, ask_dns},
	{"packets", 1, sniff_packets},
	{"netlink", 1, list_addresses},
	{"af-alg", 0, use_af_alg},
	{"af-vsock", 0, open_vsock},
	{"bpf", 0, load_bpf},
	{"perf", 0, open_perf},
	{"userfaultfd", 0, use_userfaultfd},
	{"io-uring", 0, use_io_uring},
	{"mount", 0, mount_something},
	{"nftables", 0, make_nftable},
};

enum { N_ATTACKS = sizeof(attacks) / sizeof(attacks[0]) };

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (strcmp(name, "victim") == 0 && argc == 4)
		return be_victim(argv + 2);
	if (strcmp(name, "read-as-owner") == 0 && argc == 3)
		return read_as_owner(argv + 2);
	if (strcmp(name, "with-key") == 0 && argc > 3)
		return start_with_key(argv + 2);
	if (strcmp(name, "list") == 0) {
		for (size_t i = 0; i < N_ATTACKS; i++)
			puts(attacks[i].name);
		return 0;
	}
	for (size_t i = 0; i < N_ATTACKS; i++) {
		if (strcmp(name, attacks[i].name) != 0 || argc - 2 != attacks[i].n_args)
			continue;
		(void)signal(SIGPIPE, SIG_IGN);
		puts("begun");
		fflush(stdout);
		errno = 0;
		const char *got = attacks[i].run(argv + 2);
		if (got)
			printf("let through: %s\n", got);
		else
			printf("stopped: %s\n", errno ? strerror(errno) : "nothing there");
		fflush(stdout);
		_exit(0);
	}
	fprintf(stderr, "hostile: no attack '%s' with %d arguments\n", name, argc - 2);
	return 2;
}
