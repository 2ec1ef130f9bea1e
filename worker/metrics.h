/* What is counted: by the poller and by the processes of its sessions, in memory that they share, so that a
 * process that is killed takes no count along. Without pf_metrics_make or _join all is counted for nobody. */
#ifndef PF_WORKER_METRICS_H
#define PF_WORKER_METRICS_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum pf_metric {
	PF_M_POLL_ITEM,
	PF_M_POLL_EMPTY,
	PF_M_POLL_ERROR,
	PF_M_END_IDLE, /* how an item ended; in the order of the runner's reasons */
	PF_M_END_TERMINATED,
	PF_M_END_DELETED,
	PF_M_END_STOPPING,
	PF_M_END_LOST,
	PF_M_END_SIGNALLED,
	PF_M_END_FAILED,
	PF_M_END_KILLED, /* its process was */
	PF_M_BOX_CREATED,
	PF_M_BOX_RESUMED,
	PF_M_BOX_RESTARTED,
	PF_M_CALL_OK,
	PF_M_CALL_ERROR,
	PF_M_POSTED,
	PF_M_POST_AGAIN,  /* a post that failed and will be made again */
	PF_M_POST_FAILED, /* a result that was refused or could not be delivered */
	PF_M_SNAPSHOT,
	PF_M_SNAPSHOT_FAILED,
	PF_M_HOOK_ACCEPTED,
	PF_M_HOOK_REPEATED,
	PF_M_HOOK_IGNORED,
	PF_M_HOOK_REFUSED,
	PF_M_COUNT,
};

enum pf_histogram {
	PF_H_BOX_OPEN, /* until a session's sandbox is there */
	PF_H_CALL,     /* a call, inside */
	PF_H_POST,     /* its result, until it is taken */
	PF_H_COUNT,
};

/* Make the memory. Returns its descriptor, which stays open, for pf_metrics_join in another process. */
int pf_metrics_make(struct pf_err *err);
/* Count into the memory behind fd, which is closed. One that is not ours is passed over. */
void pf_metrics_join(int fd);

void pf_metric_add(enum pf_metric m, uint64_t n);
void pf_metric_time(enum pf_histogram h, int64_t us);
/* All of it in Prometheus' text format. */
void pf_metrics_print(struct pf_buf *out);

#endif
