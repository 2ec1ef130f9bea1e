/* update: change the limits of a container. The options become the resources object that --resources would
 * give, so that there is one reading of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/units.h"
#include "cmd/pinfold/oci.h"
#include "sandbox/systemd.h"

static const char help[] =
	"update [options] ID\n\n"
	"Changes limits of a container. -1 is no limit; memory may have a unit (512m).\n\n"
	"  -r, --resources FILE     the resources object of the runtime specification; '-': standard input\n"
	"  --memory --memory-reservation --memory-swap --kernel-memory --kernel-memory-tcp\n"
	"  --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period --cpu-rt-runtime --cpu-idle\n"
	"  --cpuset-cpus --cpuset-mems --pids-limit --blkio-weight\n"
	"  --l3-cache-schema --mem-bw-schema (refused: not supported)\n";

/* How an option's value is written. */
enum form { NUMBER, SIZE, TEXT, REFUSED };

static const struct {
	const char *option, *group, *key;
	enum form form;
} fields[] = {
	{"memory", "memory", "limit", SIZE},
	{"memory-reservation", "memory", "reservation", SIZE},
	{"memory-swap", "memory", "swap", SIZE},
	{"kernel-memory", "memory", "kernel", SIZE},
	{"kernel-memory-tcp", "memory", "kernelTCP", SIZE},
	{"cpu-period", "cpu", "period", NUMBER},
	{"cpu-quota", "cpu", "quota", NUMBER},
	{"cpu-burst", "cpu", "burst", NUMBER},
	{"cpu-share", "cpu", "shares", NUMBER},
	{"cpu-rt-period", "cpu", "realtimePeriod", NUMBER},
	{"cpu-rt-runtime", "cpu", "realtimeRuntime", NUMBER},
	{"cpu-idle", "cpu", "idle", NUMBER},
	{"cpuset-cpus", "cpu", "cpus", TEXT},
	{"cpuset-mems", "cpu", "mems", TEXT},
	{"pids-limit", "pids", "limit", NUMBER},
	{"blkio-weight", "blockIO", "weight", NUMBER},
	{"l3-cache-schema", NULL, NULL, REFUSED},
	{"mem-bw-schema", NULL, NULL, REFUSED},
};
#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

static int set_field(cJSON *resources, size_t i, const char *value, struct pf_err *err)
{
	PF_FREE char *what = pf_asprintf("--%s", fields[i].option);
	cJSON *group;
	int64_t n = -1;

	if (fields[i].form == REFUSED)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "%s: is not supported", what);
	group = cJSON_GetObjectItemCaseSensitive(resources, fields[i].group);
	if (!group)
		group = cJSON_AddObjectToObject(resources, fields[i].group);
	if (fields[i].form == TEXT) {
		cJSON_AddStringToObject(group, fields[i].key, value);
		return 0;
	}
	if (strcmp(value, "-1") != 0) {
		int r = fields[i].form == SIZE && strcmp(value, "0") != 0
				? pf_parse_size(what, value, &n, err)
				: pf_parse_int(what, value, 0, INT64_C(1) << 53, &n, err);
		if (r < 0)
			return -1;
	}
	pf_json_add_int(group, fields[i].key, n);
	return 0;
}

static int update(const char *id, cJSON *resources, struct pf_err *err)
{
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_LIMITS struct pf_limits limits;

	pf_limits_init(&limits);
	/* Which devices it has is settled at create. */
	cJSON_DeleteItemFromObjectCaseSensitive(resources, "devices");
	if (pf_limits_from_oci(resources, &limits, err) < 0 || pf_oci_open(id, true, &h, err) < 0)
		return -1;
	if (h.c.status == PF_CONTAINER_STOPPED)
		return pf_fail_kind(
			err, PF_ERR_STATE, 0, "container not running: container %s has stopped", id);
	if (pf_container_cgroup(&h.c, &cg, err) < 0 || pf_cgroup_update(cg, &limits, err) < 0)
		return -1;
	if (!h.c.unit)
		return 0;
	/* It would write the old ones again. */
	struct pf_cgroup_host host;
	if (pf_cgroup_probe(&host, err) < 0)
		return -1;
	char **properties = pf_systemd_limits(&limits, &host);
	int r = pf_systemd_set(h.c.unit, properties, err);
	pf_strv_free(properties);
	return r;
}

int pf_cmd_update(int argc, char **argv)
{
	struct option options[N_FIELDS + 3] = {{"resources", required_argument, NULL, 'r'}};
	PF_JSON cJSON *resources = cJSON_CreateObject();
	struct pf_err err = PF_ERR_INIT;
	int c, r = 0;

	for (size_t i = 0; i < N_FIELDS; i++)
		options[i + 1] = (struct option){fields[i].option, required_argument, NULL, 256 + (int)i};
	options[N_FIELDS + 1] = (struct option){"help", no_argument, NULL, 'h'};
	while (r == 0 && (c = pf_getopt(argc, argv, options, false, help)) != -1) {
		if (c == 'r') {
			cJSON_Delete(resources);
			resources = pf_json_load(optarg, &err);
			if (!resources)
				r = pf_wrap(&err, "--resources");
			else if (!cJSON_IsObject(resources))
				r = pf_fail_kind(&err, PF_ERR_INVALID, 0, "--resources: must be an object");
		} else {
			r = set_field(resources, (size_t)c - 256, optarg, &err);
		}
	}
	if (r == 0 && optind + 1 != argc)
		return pf_usage("update", "takes one ID");
	if (r == 0)
		r = update(argv[optind], resources, &err);
	return r < 0 ? pf_oci_fail("update", &err, PF_OCI_FAILED) : 0;
}
