/* Seccomp filters: Pinfold's own list for sessions, OCI's linux.seccomp object, an on-disk cache, loading. */
#ifndef PF_SANDBOX_SECCOMP_H
#define PF_SANDBOX_SECCOMP_H

#include <cjson/cJSON.h>
#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

/* A filter ready to load. insns is malloc'ed and owned by this struct. */
struct pf_bpf {
	struct sock_filter *insns;
	unsigned short len; /* in instructions */
};

#define PF_BPF PF_CLEANUP(pf_bpf_done)
void pf_bpf_done(struct pf_bpf *bpf);

struct pf_seccomp_opts {
	bool nested; /* let the session make namespaces and mounts of its own (containers inside) */
	bool strict; /* nothing but unix sockets, and no looking into other processes */
	bool bare;   /* no namespaces around it: no sockets but pairs, since those of others could be reached,
			no System V IPC, no limits for other processes, and by path no other owner, attribute
			or length */
	const char *const *notify; /* calls that a listener is asked about, NULL-terminated; NULL: none.
				      Not for the cached variant */
	uint32_t arch;             /* AUDIT_ARCH_X86_64 or AUDIT_ARCH_AARCH64; 0 is this machine's */
};

/* The list for agent sessions. Calls it allows work; calls known to be dangerous fail with EPERM; calls it
 * does not know fail with ENOSYS, so that libraries fall back; another ABI (i386, x32, 32-bit ARM) kills the
 * process. PF_ERR_UNSUPPORTED for an architecture without a list. */
int pf_seccomp_default(const struct pf_seccomp_opts *opts, struct pf_bpf *out, struct pf_err *err);
/* The same through the cache below. */
int pf_seccomp_default_cached(
	int cache_dirfd, const struct pf_seccomp_opts *opts, struct pf_bpf *out, struct pf_err *err);

/* Compile an OCI linux.seccomp object. *flags gets the SECCOMP_FILTER_FLAG_* to load it with, among them
 * NEW_LISTENER when a rule notifies; *has_notify says whether one does (then listenerPath is set). Unknown
 * system call names are skipped; unknown actions, operators, architectures and flags are errors. How rules
 * that contradict each other combine is told in seccomp_oci.c. */
int pf_seccomp_oci(
	const cJSON *seccomp, struct pf_bpf *out, unsigned *flags, int *has_notify, struct pf_err *err);
/* The same through the cache below, keyed by the object's text. */
int pf_seccomp_oci_cached(int cache_dirfd, const cJSON *seccomp, struct pf_bpf *out, unsigned *flags,
	int *has_notify, struct pf_err *err);
/* Only *flags and *has_notify, without compiling: for a filter that comes from the cache. */
int pf_seccomp_oci_flags(const cJSON *seccomp, unsigned *flags, int *has_notify, struct pf_err *err);

/* The words that pf_seccomp_oci knows, for features: the i-th of a kind, NULL beyond the last. */
enum pf_seccomp_words { PF_SECCOMP_ACTIONS, PF_SECCOMP_OPERATORS, PF_SECCOMP_ARCHS, PF_SECCOMP_FLAGS };
const char *pf_seccomp_word(enum pf_seccomp_words kind, size_t i);

typedef int (*pf_seccomp_build_fn)(void *arg, struct pf_bpf *out, struct pf_err *err);
/* The filter that build(arg) makes for the source text key[0..len), from cache_dirfd if it is there, else
 * built and stored. The directory must belong to the caller and be writable by nobody else; when it is not,
 * or cache_dirfd is -1, or a file in it is damaged or somebody else's, the filter is built anew. Only build's
 * own failure is an error. */
int pf_seccomp_cached(int cache_dirfd, const char *key, size_t len, pf_seccomp_build_fn build, void *arg,
	struct pf_bpf *out, struct pf_err *err);

/* Load a filter into the calling thread, which has no_new_privs set or CAP_SYS_ADMIN. Returns 0, or the
 * notification fd (O_CLOEXEC) when flags has SECCOMP_FILTER_FLAG_NEW_LISTENER; -1 with errno.
 * Async-signal-safe. */
int pf_seccomp_load(const struct pf_bpf *bpf, unsigned flags);

#endif
