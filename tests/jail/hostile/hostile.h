/* What the hostile programs share: see main.c. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdbool.h>
#include <stddef.h>

/* One attack. It returns what it got hold of, as text, or NULL; errno is then why not. args ends with NULL
 * and has as many as the table in main.c says. */
typedef const char *attack_fn(char **args);

attack_fn read_key, read_environment, open_descriptors, leave_the_root, append_to_profile, plant_hook,
	swap_symlink, use_setuid, overwrite_runtime, use_device, fill_disk;
attack_fn read_environments, kill_process, trace_process, type_ahead, outlive, fork_bomb, use_memory,
	read_keyring;
attack_fn write_sysctl, write_cgroup, set_host, read_kernel_log, load_bpf, open_perf, use_userfaultfd,
	use_io_uring, mount_something, make_nftable;
attack_fn connect_loopback, connect_unix, ask_dns, sniff_packets, list_addresses, use_af_alg, open_vsock;

/* Parts of the stage rather than attacks. */
int be_victim(char **args);
int read_as_owner(char **args);
int start_with_key(char **args);

/* In a buffer that the next call overwrites. */
const char *textf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The first bytes of a file, or NULL. The same buffer. */
const char *contents(const char *path);
/* Make a file with some text in it; false with errno. */
bool plant(const char *path);
/* The next number among /proc's names after *at (begin with 0), or 0. */
int next_pid(void **dir);
/* A new user namespace in which we are root, and those of flags. */
bool become_root(int flags);

#endif
