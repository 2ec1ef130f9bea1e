/* Attacks on the kernel's wide side: what an exploit of it needs first. */
#include "tests/jail/hostile/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

static bool write_text(const char *path, const char *words)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, words, strlen(words)) == (ssize_t)strlen(words);

	if (fd >= 0)
		close(fd);
	return done;
}

bool become_root(int flags)
{
	char map[64];
	uid_t uid = getuid();
	gid_t gid = getgid();

	if (unshare(CLONE_NEWUSER | flags) < 0)
		return false;
	snprintf(map, sizeof(map), "0 %u 1", uid);
	bool done = write_text("/proc/self/uid_map", map) && write_text("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "0 %u 1", gid);
	return done && write_text("/proc/self/gid_map", map);
}

/* The machine's names are where the caller looks whether we changed them; the trigger is only opened. */
const char *write_sysctl(char **args)
{
	(void)args;
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		return "sysrq-trigger, open for writing";
	}
	fd = open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		return "core_pattern, open for writing";
	}
	return write_text("/proc/sys/kernel/domainname", "hostile") ? "tried" : NULL;
}

/* args: a cgroup that the caller may change. */
const char *write_cgroup(char **args)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/planted", args[0]);
	if (mkdir(path, 0755) == 0)
		return "tried";
	if (become_root(CLONE_NEWNS | CLONE_NEWCGROUP) && mount("cgroup2", "/tmp", "cgroup2", 0, NULL) == 0 &&
		mkdir("/tmp/planted", 0755) == 0)
		return "tried";
	return NULL;
}

const char *set_host(char **args)
{
	struct timex now = {0};

	(void)args;
	/* The clock as it is. */
	if (adjtimex(&now) >= 0) {
		now.modes = ADJ_TICK;
		if (adjtimex(&now) >= 0)
			return "the clock's rate";
	}
	return sethostname("hostile", 7) == 0 ? "tried" : NULL;
}

const char *read_kernel_log(char **args)
{
	static char line[256];

	(void)args;
	if (klogctl(3, line, sizeof(line) - 1) > 0)
		return "the kernel's messages";
	FILE *f = fopen("/proc/kallsyms", "re");
	const char *got = NULL;
	while (f && !got && fgets(line, sizeof(line), f))
		if (strtoul(line, NULL, 16) != 0)
			got = textf("%.40s", line);
	if (f)
		fclose(f);
	return got;
}

const char *load_bpf(char **args)
{
	struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 7}, {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr load = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insn_cnt = 2,
		.insns = (uintptr_t)code,
		.license = (uintptr_t) "GPL"};
	struct bpf_prog_info info = {0};

	(void)args;
	int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));
	if (fd < 0)
		return NULL;
	union bpf_attr ask = {
		.info = {.bpf_fd = (uint32_t)fd, .info_len = sizeof(info), .info = (uintptr_t)&info}};
	return syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &ask, sizeof(ask)) == 0 ? textf("program %u", info.id)
										: NULL;
}

const char *open_perf(char **args)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_TASK_CLOCK,
		.exclude_kernel = 1};
	uint64_t count = 0;

	(void)args;
	int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	for (volatile int i = 0; fd >= 0 && i < 1000000; i++)
		;
	return fd >= 0 && read(fd, &count, sizeof(count)) == sizeof(count) && count ? "a counter that counts"
										    : NULL;
}

const char *use_userfaultfd(char **args)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	(void)args;
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		return NULL;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)page;
	reg.range.len = 4096;
	return ioctl(fd, UFFDIO_REGISTER, &reg) == 0 ? "faults of a page" : NULL;
}

/* A request that does nothing, to the end. */
const char *use_io_uring(char **args)
{
	struct io_uring_params p = {0};

	(void)args;
	int fd = (int)syscall(SYS_io_uring_setup, 2, &p);
	if (fd < 0)
		return NULL;
	char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(uint32_t), PROT_READ | PROT_WRITE,
		MAP_SHARED, fd, IORING_OFF_SQ_RING);
	struct io_uring_sqe *sqe = mmap(
		NULL, p.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
	char *cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_CQ_RING);
	if (sq == MAP_FAILED || sqe == MAP_FAILED || cq == MAP_FAILED)
		return NULL;
	*sqe = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .user_data = 4711};
	*(uint32_t *)(void *)(sq + p.sq_off.array) = 0;
	__atomic_store_n((uint32_t *)(void *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return NULL;
	const struct io_uring_cqe *done = (const void *)(cq + p.cq_off.cqes);
	return done->user_data == 4711 && done->res == 0 ? "a request done" : NULL;
}

const char *mount_something(char **args)
{
	struct stat before, after;

	(void)args;
	if (!become_root(CLONE_NEWNS) || stat("/tmp", &before) < 0 ||
		mount("hostile", "/tmp", "tmpfs", 0, NULL) < 0 || stat("/tmp", &after) < 0)
		return NULL;
	return before.st_dev != after.st_dev ? "root of a user namespace, and a mount in it" : NULL;
}

struct nf_message {
	struct nlmsghdr h;
	struct nfgenmsg g;
	struct nlattr name;
	char text[8];
};

static struct nf_message nf_message(uint16_t type, uint16_t flags, uint16_t res, uint32_t seq, bool named)
{
	struct nf_message m = {
		.h = {.nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags), .nlmsg_seq = seq},
		.g = {.nfgen_family = named ? 1 : 0, .version = NFNETLINK_V0, .res_id = res},
		.name = {.nla_len = sizeof(struct nlattr) + 8, .nla_type = NFTA_TABLE_NAME},
		.text = "hostile"};

	m.h.nlmsg_len = named ? sizeof(m) : NLMSG_LENGTH(sizeof(struct nfgenmsg));
	return m;
}

/* The kernel's part that most of the last years' exploits went through, as root of namespaces of one's own.
 */
const char *make_nftable(char **args)
{
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
		char rest[256];
	} answer;
	char batch[256];
	size_t len = 0;

	(void)args;
	/* Bare and as root, this must not be done to the machine's own network. */
	if (!become_root(CLONE_NEWNET))
		return NULL;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (fd < 0)
		return NULL;
	const uint16_t subsystem =
		(uint16_t)(((NFNL_SUBSYS_NFTABLES & 0xff) << 8) | (NFNL_SUBSYS_NFTABLES >> 8));
	const struct nf_message parts[] = {nf_message(NFNL_MSG_BATCH_BEGIN, 0, subsystem, 1, false),
		nf_message(
			(NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, 0, 2, true),
		nf_message(NFNL_MSG_BATCH_END, 0, subsystem, 3, false)};
	for (size_t i = 0; i < 3; i++) {
		memcpy(batch + len, &parts[i], parts[i].h.nlmsg_len);
		len += parts[i].h.nlmsg_len;
	}
	if (send(fd, batch, len, 0) < 0 ||
		recv(fd, &answer, sizeof(answer), 0) < (ssize_t)sizeof(answer.h) + 4 ||
		answer.h.nlmsg_type != NLMSG_ERROR)
		return NULL;
	errno = -answer.e.error;
	return answer.e.error == 0 && answer.h.nlmsg_seq == 2 ? "a table of nf_tables" : NULL;
}
