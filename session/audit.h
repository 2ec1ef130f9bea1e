/* The audit log: <store>/logs/ID.jsonl, one JSON object per line and event, kept when the sandbox is
 * destroyed. Each line is one O_APPEND write, so that the keeper and the command line can both write. Never
 * holds a secret: values of the environment are not logged, only commands' argv. */
#ifndef PF_SESSION_AUDIT_H
#define PF_SESSION_AUDIT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "session/dirs.h"

/* Open (and make) the log. */
int pf_audit_open(const struct pf_dirs *d, const char *id, struct pf_err *err);

/* Adds time and event to fields, writes the line and deletes fields. fields may be NULL. */
int pf_audit_write(int fd, const char *event, cJSON *fields, struct pf_err *err);

/* The lines of a gate. They are written by pf_audit_flush, or when many have come. */
struct pf_gate_event;
struct pf_audit_lines {
	int fd;
	struct pf_buf text;
	bool full;
	uint64_t left_out; /* since it is */
};
/* At this size of the file, lines that a payload can have written at will are left out until it is smaller
 * again. */
#define PF_AUDIT_FULL ((int64_t)1 << 30)
bool pf_audit_is_full(int fd);
void pf_audit_verdict(struct pf_audit_lines *l, const struct pf_gate_event *ev);
/* A full disk must not open the gate nor stop it: lines that cannot be written are lost. */
void pf_audit_flush(struct pf_audit_lines *l);

#endif
