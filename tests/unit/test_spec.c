/* config.json, property by property: what is wrong is refused by a message that names it, and what is right
 * is read as what it means. The whole of the parsing is under test, that of resources and seccomp too.
 * parallel-safe
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/str.h"
#include "sandbox/bpf_device.h"
#include "sandbox/cgroup.h"
#include "sandbox/seccomp.h"
#include "sandbox/spec.h"

static const char base[] =
	"{\"ociVersion\":\"1.3.0\",\"process\":{\"terminal\":false,\"user\":{\"uid\":0,\"gid\":0},\"args\":["
	"\"sh\"],"
	"\"env\":[\"PATH=/bin\"],\"cwd\":\"/\",\"capabilities\":{\"bounding\":[\"CAP_KILL\"]},"
	"\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":10,\"hard\":20}]},\"root\":{\"path\":\"rootfs\"},"
	"\"hostname\":\"x\",\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"}],"
	"\"hooks\":{},\"annotations\":{},\"linux\":{\"resources\":{},\"namespaces\":[{\"type\":\"pid\"},"
	"{\"type\":\"network\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"},{\"type\":"
	"\"cgroup\"}]}}";

/* Put the JSON text at a path like "linux.namespaces.0.type", making objects on the way; "+": at the end of
 * an array; text NULL: take it away. */
static void put(cJSON *at, const char *path, const char *text)
{
	char key[64];
	size_t n = strcspn(path, ".");

	assert_true(n < sizeof(key));
	memcpy(key, path, n);
	key[n] = '\0';
	if (path[n] == '.') {
		cJSON *next = cJSON_IsArray(at) ? cJSON_GetArrayItem(at, atoi(key))
						: cJSON_GetObjectItemCaseSensitive(at, key);
		if (!next)
			next = cJSON_AddObjectToObject(at, key);
		put(next, path + n + 1, text);
		return;
	}
	cJSON *value = text ? cJSON_Parse(text) : NULL;
	if (text && !value)
		fail_msg("the test's own JSON is wrong: %s", text);
	if (cJSON_IsArray(at)) {
		if (key[0] == '+')
			cJSON_AddItemToArray(at, value);
		else
			cJSON_ReplaceItemInArray(at, atoi(key), value);
	} else {
		cJSON_DeleteItemFromObjectCaseSensitive(at, key);
		if (value)
			cJSON_AddItemToObject(at, key, value);
	}
}

/* All that reads a configuration before anything is made. */
static int judge(cJSON *document, struct pf_spec *spec, struct pf_err *err)
{
	PF_LIMITS struct pf_limits limits;
	PF_DEVICE_RULES struct pf_device_rules rules = {0};
	PF_BPF struct pf_bpf filter = {0};
	unsigned flags = 0;
	int notify = 0;

	pf_limits_init(&limits);
	if (pf_spec_parse(document, spec, err) < 0)
		return -1;
	if (pf_limits_from_oci(spec->resources, &limits, err) == 0 &&
		pf_device_rules_from_oci(spec->resources, &rules, err) == 0 &&
		(!spec->seccomp || pf_seccomp_oci(spec->seccomp, &filter, &flags, &notify, err) == 0))
		return 0;
	pf_spec_done(spec);
	return -1;
}

static const struct {
	const char *path, *value, *expect;
} wrong[] = {
	{"process", NULL, "process"},
	{"process", "[]", "process"},
	{"process.terminal", "1", "process.terminal"},
	{"process.consoleSize", "3", "process.consoleSize"},
	{"process.consoleSize", "{\"width\":-1,\"height\":1}", "process.consoleSize.width"},
	{"process.consoleSize", "{\"width\":1,\"height\":70000}", "process.consoleSize.height"},
	{"process.cwd", NULL, "process.cwd"},
	{"process.cwd", "\"tmp\"", "process.cwd"},
	{"process.cwd", "7", "process.cwd"},
	{"process.env", "\"A=b\"", "process.env"},
	{"process.env", "[\"novalue\"]", "process.env"},
	{"process.env", "[\"=x\"]", "process.env"},
	{"process.env", "[1]", "process.env"},
	{"process.args", "\"sh\"", "process.args"},
	{"process.args", "[1]", "process.args"},
	{"process.rlimits", "{}", "process.rlimits"},
	{"process.rlimits", "[{\"type\":\"RLIMIT_NOSUCH\",\"soft\":1,\"hard\":1}]", "RLIMIT_NOSUCH"},
	{"process.rlimits", "[{\"type\":\"RLIMIT_CPU\",\"hard\":1}]", "process.rlimits"},
	{"process.rlimits", "[{\"type\":\"RLIMIT_CPU\",\"soft\":\"1\",\"hard\":1}]", "process.rlimits.soft"},
	{"process.rlimits", "[{\"type\":\"RLIMIT_CPU\",\"soft\":-1,\"hard\":1}]", "process.rlimits.soft"},
	{"process.rlimits",
		"[{\"type\":\"RLIMIT_CPU\",\"soft\":1,\"hard\":1},{\"type\":\"RLIMIT_CPU\",\"soft\":1,"
		"\"hard\":1}]",
		"twice"},
	{"process.apparmorProfile", "[]", "process.apparmorProfile"},
	{"process.selinuxLabel", "{}", "process.selinuxLabel"},
	{"process.capabilities", "[\"CAP_KILL\"]", "process.capabilities"},
	{"process.capabilities.bounding", "[\"CAP_NOSUCH\"]", "process.capabilities.bounding"},
	{"process.capabilities.effective", "[\"KILL!\"]", "process.capabilities.effective"},
	{"process.capabilities.permitted", "\"CAP_KILL\"", "process.capabilities.permitted"},
	{"process.capabilities.inheritable", "[3]", "process.capabilities.inheritable"},
	{"process.capabilities.ambient", "[\"CAP_\"]", "process.capabilities.ambient"},
	{"process.noNewPrivileges", "\"true\"", "process.noNewPrivileges"},
	{"process.oomScoreAdj", "1001", "process.oomScoreAdj"},
	{"process.oomScoreAdj", "-1001", "process.oomScoreAdj"},
	{"process.oomScoreAdj", "0.5", "process.oomScoreAdj"},
	{"process.user", "\"root\"", "process.user"},
	{"process.user.uid", "-1", "process.user.uid"},
	{"process.user.uid", "4294967295", "process.user.uid"},
	{"process.user.uid", "\"0\"", "process.user.uid"},
	{"process.user.gid", "4294967296", "process.user.gid"},
	{"process.user.umask", "512", "process.user.umask"},
	{"process.user.additionalGids", "5", "process.user.additionalGids"},
	{"process.user.additionalGids", "[-1]", "process.user.additionalGids"},
	{"process.user.additionalGids", "[\"5\"]", "process.user.additionalGids"},
	{"process.scheduler", "{}", "process.scheduler"},
	{"process.scheduler", "{\"policy\":\"SCHED_NOSUCH\"}", "process.scheduler.policy"},
	{"process.scheduler", "{\"policy\":\"SCHED_OTHER\",\"nice\":20}", "process.scheduler.nice"},
	{"process.scheduler", "{\"policy\":\"SCHED_OTHER\",\"priority\":1}", "process.scheduler: priority"},
	{"process.scheduler", "{\"policy\":\"SCHED_FIFO\",\"priority\":100}", "process.scheduler.priority"},
	{"process.scheduler", "{\"policy\":\"SCHED_OTHER\",\"flags\":[\"X\"]}", "process.scheduler.flags"},
	{"process.scheduler", "{\"policy\":\"SCHED_OTHER\",\"runtime\":1}", "process.scheduler: runtime"},
	{"process.scheduler", "{\"policy\":\"SCHED_DEADLINE\",\"period\":-1}", "process.scheduler.period"},
	{"process.ioPriority", "{\"priority\":1}", "process.ioPriority"},
	{"process.ioPriority", "{\"class\":\"IDLE\"}", "process.ioPriority.class"},
	{"process.ioPriority", "{\"class\":\"IOPRIO_CLASS_BE\",\"priority\":8}",
		"process.ioPriority.priority"},
	{"process.execCPUAffinity", "\"0\"", "process.execCPUAffinity"},
	{"process.execCPUAffinity.initial", "\"0-\"", "process.execCPUAffinity.initial"},
	{"process.execCPUAffinity.final", "\"a\"", "process.execCPUAffinity.final"},
	{"root", "\"rootfs\"", "root"},
	{"root.path", "1", "root.path"},
	{"root.readonly", "\"yes\"", "root.readonly"},
	{"hostname", "[]", "hostname"},
	{"domainname", "5", "domainname"},
	{"linux.namespaces", "[{\"type\":\"mount\"}]", "hostname: needs a uts namespace"},
	{"mounts", "{}", "mounts"},
	{"mounts.0", "\"proc\"", "mounts[0]"},
	{"mounts.0.destination", NULL, "mounts[0]"},
	{"mounts.0.destination", "\"/a/../b\"", "mounts[0].destination"},
	{"mounts.0.type", "1", "mounts[0].type"},
	{"mounts.0.source", "1", "mounts[0].source"},
	{"mounts.0.options", "\"ro\"", "mounts[0].options"},
	{"mounts.0.options", "[1]", "mounts[0].options"},
	{"mounts.0.options", "[\"remount\"]", "remount"},
	{"mounts.0.options", "[\"tmpcopyup\"]", "tmpcopyup"},
	{"mounts.0.options", "[\"idmap\"]", "/proc"},
	{"mounts.+", "{\"destination\":\"/b\",\"type\":\"bind\"}", "needs a source"},
	{"mounts.+",
		"{\"destination\":\"/b\",\"type\":\"bind\",\"source\":\"/"
		"\",\"options\":[\"bind\",\"size=1\"]}",
		"size=1"},
	{"mounts.+", "{\"destination\":\"/b\",\"source\":\"/\",\"options\":[\"bind\",\"idmap\"]}", "idmap"},
	{"mounts.0.uidMappings", "[{\"containerID\":0,\"hostID\":0,\"size\":1}]", "gidMappings"},
	{"mounts.0.gidMappings", "[{\"containerID\":0,\"hostID\":0,\"size\":0}]", "gidMappings.size"},
	{"hooks", "[]", "hooks"},
	{"hooks.prestart", "{}", "hooks.prestart"},
	{"hooks.createRuntime", "[{}]", "hooks.createRuntime[0].path"},
	{"hooks.createContainer", "[{\"path\":\"true\"}]", "hooks.createContainer[0].path"},
	{"hooks.startContainer", "[\"/bin/true\"]", "hooks.startContainer[0]"},
	{"hooks.poststart", "[{\"path\":\"/x\",\"timeout\":0}]", "hooks.poststart[0].timeout"},
	{"hooks.poststop", "[{\"path\":\"/x\",\"args\":\"x\"}]", "hooks.poststop[0].args"},
	{"hooks.poststop", "[{\"path\":\"/x\",\"env\":[1]}]", "hooks.poststop[0].env"},
	{"annotations", "[]", "annotations"},
	{"annotations.a", "1", "annotations.a"},
	{"linux", NULL, "linux"},
	{"linux.namespaces", "{}", "linux.namespaces"},
	{"linux.namespaces.0.type", NULL, "linux.namespaces"},
	{"linux.namespaces.0.type", "\"net\"", "linux.namespaces"},
	{"linux.namespaces.0.type", "\"mount\"", "twice"},
	{"linux.namespaces.0.path", "\"relative\"", "linux.namespaces"},
	{"linux.namespaces.0.path", "1", "linux.namespaces.path"},
	{"linux.namespaces.4.path", "\"/proc/1/ns/mnt\"", "mount namespace"},
	{"linux.namespaces.4.type", "\"time\"", "a mount namespace is required"},
	{"linux.namespaces.+", "{\"type\":\"user\"}", "uidMappings"},
	{"linux.uidMappings", "[{\"containerID\":0,\"hostID\":1,\"size\":1}]", "linux.uidMappings"},
	{"linux.uidMappings", "[{\"containerID\":0,\"hostID\":1}]", "linux.uidMappings"},
	{"linux.gidMappings", "[{\"containerID\":-1,\"hostID\":1,\"size\":1}]",
		"linux.gidMappings.containerID"},
	{"linux.gidMappings", "[{\"containerID\":0,\"hostID\":4294967295,\"size\":1}]",
		"linux.gidMappings.hostID"},
	{"linux.timeOffsets", "{\"boottime\":{\"secs\":1}}", "linux.timeOffsets"},
	{"linux.timeOffsets", "{\"realtime\":{\"secs\":1}}", "linux.timeOffsets"},
	{"linux.timeOffsets", "{\"boottime\":{\"nanosecs\":1000000000}}", "linux.timeOffsets.nanosecs"},
	{"linux.devices", "{}", "linux.devices"},
	{"linux.devices", "[{\"path\":\"/d\",\"type\":\"x\",\"major\":1,\"minor\":1}]", "linux.devices[0]"},
	{"linux.devices", "[{\"path\":\"d\",\"type\":\"c\",\"major\":1,\"minor\":1}]", "linux.devices[0]"},
	{"linux.devices", "[{\"path\":\"/d\",\"type\":\"c\",\"major\":1}]", "linux.devices[0]"},
	{"linux.devices", "[{\"path\":\"/d\",\"type\":\"c\",\"major\":5000,\"minor\":1}]",
		"linux.devices[0].major"},
	{"linux.devices", "[{\"path\":\"/d\",\"type\":\"p\",\"fileMode\":-1}]", "linux.devices[0].fileMode"},
	{"linux.devices", "[{\"path\":\"/d\",\"type\":\"p\",\"uid\":\"0\"}]", "linux.devices[0].uid"},
	{"linux.devices", "[{\"path\":\"/d\",\"type\":\"p\",\"gid\":-1}]", "linux.devices[0].gid"},
	{"linux.netDevices", "[]", "linux.netDevices"},
	{"linux.netDevices", "{\"eth/0\":{}}", "linux.netDevices"},
	{"linux.netDevices", "{\"eth0\":{\"name\":\"averyverylongname\"}}", "linux.netDevices"},
	{"linux.netDevices", "{\"eth0\":{\"name\":5}}", "linux.netDevices"},
	{"linux.cgroupsPath", "1", "linux.cgroupsPath"},
	{"linux.resources", "[]", "linux.resources"},
	{"linux.resources.devices", "{}", "linux.resources.devices"},
	{"linux.resources.devices", "[{\"allow\":1}]", "linux.resources.devices[0]"},
	{"linux.resources.devices", "[{\"allow\":true,\"type\":\"z\"}]", "linux.resources.devices[0]"},
	{"linux.resources.devices", "[{\"allow\":true,\"access\":\"rx\"}]", "linux.resources.devices[0]"},
	{"linux.resources.memory", "5", "linux.resources.memory"},
	{"linux.resources.memory.limit", "\"1g\"", "linux.resources.memory.limit"},
	{"linux.resources.memory.reservation", "true", "linux.resources.memory.reservation"},
	{"linux.resources.memory", "{\"limit\":10000000,\"reservation\":20000000}", "memory.reservation"},
	{"linux.resources.memory.swap", "1000000", "linux.resources.memory.swap"},
	{"linux.resources.memory.kernel", "1000000", "linux.resources.memory.kernel"},
	{"linux.resources.memory.kernelTCP", "1000000", "linux.resources.memory.kernelTCP"},
	{"linux.resources.memory.swappiness", "101", "linux.resources.memory.swappiness"},
	{"linux.resources.memory.disableOOMKiller", "1", "linux.resources.memory.disableOOMKiller"},
	{"linux.resources.memory.useHierarchy", "false", "linux.resources.memory.useHierarchy"},
	{"linux.resources.memory.checkBeforeUpdate", "0", "linux.resources.memory.checkBeforeUpdate"},
	{"linux.resources.cpu", "[]", "linux.resources.cpu"},
	{"linux.resources.cpu.shares", "-2", "linux.resources.cpu.shares"},
	{"linux.resources.cpu.quota", "10", "linux.resources.cpu.quota"},
	{"linux.resources.cpu.period", "10", "linux.resources.cpu.period"},
	{"linux.resources.cpu.burst", "-1", "linux.resources.cpu.burst"},
	{"linux.resources.cpu", "{\"quota\":10000,\"burst\":20000}", "linux.resources.cpu.burst"},
	{"linux.resources.cpu.realtimeRuntime", "\"x\"", "linux.resources.cpu.realtimeRuntime"},
	{"linux.resources.cpu.realtimePeriod", "-1", "linux.resources.cpu.realtimePeriod"},
	{"linux.resources.cpu.cpus", "\"3-1\"", "linux.resources.cpu.cpus"},
	{"linux.resources.cpu.mems", "\"x\"", "linux.resources.cpu.mems"},
	{"linux.resources.cpu.idle", "2", "linux.resources.cpu.idle"},
	{"linux.resources.blockIO.weight", "1001", "linux.resources.blockIO.weight"},
	{"linux.resources.blockIO.leafWeight", "10", "linux.resources.blockIO.leafWeight"},
	{"linux.resources.blockIO.weightDevice", "[{\"major\":8}]",
		"linux.resources.blockIO.weightDevice[0]"},
	{"linux.resources.blockIO.weightDevice", "[{\"major\":8,\"minor\":0,\"leafWeight\":10}]",
		"linux.resources.blockIO.weightDevice[0].leafWeight"},
	{"linux.resources.blockIO.throttleReadBpsDevice", "[{\"minor\":0,\"rate\":1}]",
		"throttleReadBpsDevice[0]"},
	{"linux.resources.blockIO.throttleWriteBpsDevice", "[{\"major\":8,\"minor\":0,\"rate\":-1}]",
		"throttleWriteBpsDevice[0].rate"},
	{"linux.resources.blockIO.throttleReadIOPSDevice", "{}", "throttleReadIOPSDevice"},
	{"linux.resources.blockIO.throttleWriteIOPSDevice", "[5]", "throttleWriteIOPSDevice[0]"},
	{"linux.resources.hugepageLimits", "[{\"pageSize\":\"2m\",\"limit\":1}]",
		"hugepageLimits[0].pageSize"},
	{"linux.resources.hugepageLimits", "[{\"pageSize\":\"2MB\"}]", "hugepageLimits[0].limit"},
	{"linux.resources.network.classID", "1", "linux.resources.network"},
	{"linux.resources.network.priorities", "[{\"name\":\"lo\",\"priority\":1}]",
		"linux.resources.network"},
	{"linux.resources.pids.limit", "\"5\"", "linux.resources.pids.limit"},
	{"linux.resources.rdma", "{\"mlx5_1\":5}", "linux.resources.rdma.mlx5_1"},
	{"linux.resources.rdma", "{\"mlx5_1\":{\"hcaHandles\":-1}}", "hcaHandles"},
	{"linux.resources.rdma", "{\"mlx5_1\":{\"hcaObjects\":\"1\"}}", "hcaObjects"},
	{"linux.resources.rdma", "{\"mlx5_1\":{}}", "linux.resources.rdma.mlx5_1"},
	{"linux.resources.unified", "{\"memory.high\":5}", "linux.resources.unified"},
	{"linux.intelRdt", "{\"closID\":\"x\"}", "linux.intelRdt"},
	{"linux.sysctl", "[]", "linux.sysctl"},
	{"linux.sysctl", "{\"net.ipv4.ip_forward\":1}", "linux.sysctl"},
	{"linux.sysctl", "{\"kernel.core_pattern\":\"x\"}", "linux.sysctl"},
	{"linux.sysctl", "{\"net/../vm/swappiness\":\"x\"}", "linux.sysctl"},
	{"linux.seccomp", "[]", "linux.seccomp"},
	{"linux.seccomp", "{}", "defaultAction"},
	{"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_X\"}", "SCMP_ACT_X"},
	{"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"defaultErrnoRet\":5}", "defaultErrnoRet"},
	{"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"VAX\"]}", "VAX"},
	{"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"X\"]}", "flags"},
	{"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerMetadata\":\"x\"}",
		"listenerMetadata"},
	{"linux.seccomp",
		"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[],\"action\":\"SCMP_ACT_"
		"LOG\"}]}",
		"names"},
	{"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"]}]}",
		"action"},
	{"linux.seccomp",
		"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_"
		"ACT_ERRNO\","
		"\"args\":[{\"index\":6,\"value\":1,\"op\":\"SCMP_CMP_EQ\"}]}]}",
		"index"},
	{"linux.seccomp",
		"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_"
		"ACT_ERRNO\","
		"\"args\":[{\"index\":1,\"value\":1,\"op\":\"EQ\"}]}]}",
		"op"},
	{"linux.seccomp",
		"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_"
		"ACT_NOTIFY\"}]}",
		"listenerPath"},
	{"linux.rootfsPropagation", "\"sharde\"", "linux.rootfsPropagation"},
	{"linux.rootfsPropagation", "1", "linux.rootfsPropagation"},
	{"linux.maskedPaths", "\"/proc\"", "linux.maskedPaths"},
	{"linux.maskedPaths", "[\"relative\"]", "linux.maskedPaths"},
	{"linux.maskedPaths", "[\"/proc/../etc/shadow\"]", "linux.maskedPaths"},
	{"linux.readonlyPaths", "[1]", "linux.readonlyPaths"},
	{"linux.readonlyPaths", "[\"relative\"]", "linux.readonlyPaths"},
	{"linux.mountLabel", "1", "linux.mountLabel"},
	{"linux.personality", "{}", "linux.personality"},
	{"linux.personality", "{\"domain\":\"BSD\"}", "linux.personality.domain"},
	{"linux.personality", "{\"domain\":\"LINUX\",\"flags\":[\"X\"]}", "linux.personality.flags"},
	{"linux.memoryPolicy", "{}", "linux.memoryPolicy"},
	{"linux.memoryPolicy", "{\"mode\":\"MPOL_X\"}", "linux.memoryPolicy.mode"},
	{"linux.memoryPolicy", "{\"mode\":\"MPOL_BIND\",\"nodes\":\"x\"}", "linux.memoryPolicy.nodes"},
	{"linux.memoryPolicy", "{\"mode\":\"MPOL_BIND\",\"nodes\":\"0\",\"flags\":[\"X\"]}",
		"linux.memoryPolicy.flags"},
};

/* Each property that is wrong is refused, by its name. */
static void test_wrong(void **state)
{
	size_t bad = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		cJSON *document = cJSON_Parse(base);
		struct pf_err err = PF_ERR_INIT;
		struct pf_spec spec;

		put(document, wrong[i].path, wrong[i].value);
		if (judge(document, &spec, &err) == 0) {
			pf_spec_done(&spec);
			print_message("%s = %s is taken\n", wrong[i].path, wrong[i].value);
			bad++;
		} else if (!strstr(err.msg, wrong[i].expect)) {
			print_message("%s = %s: '%s' does not name %s\n", wrong[i].path, wrong[i].value,
				err.msg, wrong[i].expect);
			bad++;
		}
	}
	if (bad)
		fail_msg("%zu wrong properties", bad);
}

/* Text that is no JSON, or JSON that nobody means. */
static void test_malformed(void **state)
{
	static const char *const texts[] = {"", "{", "{\"a\":1,}", "{\"a\":1}x", "{\"a\":1,\"a\":2}", "[",
		"{\"a\":\"\xff\"}", "{\"a\":\"\\u0000\"}", "nul", "{'a':1}"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct pf_err err = PF_ERR_INIT;
		PF_JSON cJSON *j = pf_json_parse("config.json", texts[i], strlen(texts[i]), &err);
		if (j || !strstr(err.msg, "config.json"))
			fail_msg("'%s': %s", texts[i], j ? "is taken" : err.msg);
	}
}

static void parse(const char *path, const char *value, struct pf_spec *spec)
{
	cJSON *document = cJSON_Parse(base);
	struct pf_err err = PF_ERR_INIT;

	if (path)
		put(document, path, value);
	if (judge(document, spec, &err) < 0)
		fail_msg("%s = %s: %s", path ? path : "the base", value ? value : "-", err.msg);
}

/* What mount options mean, plain and recursive. */
static void test_mount_options(void **state)
{
	static const struct {
		const char *options;
		uint64_t set, clear, rec_set, rec_clear;
		unsigned long propagation;
	} cases[] = {
		{"[\"bind\",\"ro\"]", MOUNT_ATTR_RDONLY, 0, 0, 0, 0},
		{"[\"rbind\",\"rro\"]", 0, 0, MOUNT_ATTR_RDONLY, 0, 0},
		{"[\"bind\",\"ro\",\"rw\"]", 0, MOUNT_ATTR_RDONLY, 0, 0, 0},
		{"[\"bind\",\"rnosuid\",\"nodev\",\"noexec\"]", MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0,
			MOUNT_ATTR_NOSUID, 0, 0},
		{"[\"bind\",\"rsuid\",\"rdev\",\"rexec\"]", 0, 0, 0,
			MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0},
		{"[\"bind\",\"noatime\"]", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME, 0, 0, 0},
		{"[\"bind\",\"rstrictatime\"]", 0, 0, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME, 0},
		{"[\"bind\",\"nodiratime\",\"nosymfollow\"]", MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW,
			0, 0, 0, 0},
		{"[\"rbind\",\"rslave\"]", 0, 0, 0, 0, MS_SLAVE | MS_REC},
		{"[\"rbind\",\"private\",\"shared\"]", 0, 0, 0, 0, MS_SHARED},
		{"[\"bind\",\"defaults\",\"silent\",\"loud\"]", 0, 0, 0, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		PF_FREE char *mount = pf_asprintf(
			"{\"destination\":\"/b\",\"source\":\"/\",\"options\":%s}", cases[i].options);
		struct pf_spec spec;
		parse("mounts.+", mount, &spec);
		const struct pf_mount *m = &spec.mounts[1];
		if (m->attr_set != cases[i].set || m->attr_clr != cases[i].clear ||
			m->rec_attr_set != cases[i].rec_set || m->rec_attr_clr != cases[i].rec_clear ||
			m->propagation != cases[i].propagation)
			fail_msg("%s: set %llx clear %llx, below set %llx clear %llx, propagation %lx",
				cases[i].options, (unsigned long long)m->attr_set,
				(unsigned long long)m->attr_clr, (unsigned long long)m->rec_attr_set,
				(unsigned long long)m->rec_attr_clr, m->propagation);
		pf_spec_done(&spec);
	}
}

/* Values are read as what they mean; what is absent is absent. */
static void test_right(void **state)
{
	struct pf_spec spec;

	(void)state;
	parse(NULL, NULL, &spec);
	assert_int_equal(spec.clone_flags,
		CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP);
	assert_false(spec.process.has_oom_score_adj || spec.process.has_umask || spec.process.scheduler.set ||
		     spec.process.has_io_priority || spec.has_personality || spec.mempolicy.set);
	pf_spec_done(&spec);
	parse("process.scheduler",
		"{\"policy\":\"SCHED_DEADLINE\",\"runtime\":1,\"deadline\":2,\"period\":3,"
		"\"flags\":[\"SCHED_FLAG_RECLAIM\",\"SCHED_FLAG_RESET_ON_FORK\"]}",
		&spec);
	assert_true(spec.process.scheduler.set);
	assert_int_equal(spec.process.scheduler.policy, 6);
	assert_int_equal(spec.process.scheduler.flags, 3);
	assert_int_equal(spec.process.scheduler.period, 3);
	pf_spec_done(&spec);
	parse("process.ioPriority", "{\"class\":\"IOPRIO_CLASS_RT\",\"priority\":4}", &spec);
	assert_int_equal(spec.process.io_priority, (1 << 13) | 4);
	pf_spec_done(&spec);
	parse("linux.memoryPolicy",
		"{\"mode\":\"MPOL_INTERLEAVE\",\"nodes\":\"0,65\",\"flags\":[\"MPOL_F_STATIC_NODES\"]}",
		&spec);
	assert_int_equal(spec.mempolicy.mode, 3 | (1 << 15));
	assert_int_equal(spec.mempolicy.nodes[0], 1);
	assert_int_equal(spec.mempolicy.nodes[1], 2);
	pf_spec_done(&spec);
	parse("process.rlimits",
		"[{\"type\":\"RLIMIT_CORE\",\"soft\":18446744073709551615,\"hard\":18446744073709551615}]",
		&spec);
	assert_true(spec.process.rlimits[0].hard == UINT64_MAX);
	pf_spec_done(&spec);
	parse("linux.namespaces.+", "{\"type\":\"time\"}", &spec);
	assert_true(spec.clone_flags & 0x80);
	pf_spec_done(&spec);
	/* What nobody knows is ignored, as the specification asks. */
	parse("linux.nosuchProperty", "{\"a\":1}", &spec);
	pf_spec_done(&spec);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_mount_options),
		cmocka_unit_test(test_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
