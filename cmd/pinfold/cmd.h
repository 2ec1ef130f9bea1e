/* What the verbs of pinfold share. One file per verb (or a few close kin); nothing but arguments and
 * printing. */
#ifndef PF_CMD_PINFOLD_CMD_H
#define PF_CMD_PINFOLD_CMD_H

#include <cjson/cJSON.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "session/dirs.h"
#include "session/log.h"

/* Exit codes: the command's own for exec, else these (docker's and timeout(1)'s). */
enum { PF_EXIT_FAILED = 125, PF_EXIT_NO_EXEC = 126, PF_EXIT_NO_COMMAND = 127, PF_EXIT_TIMEOUT = 124 };

struct pf_globals {
	struct pf_dirs dirs;
	struct pf_log_to log; /* --log, --log-format */
	bool systemd_cgroup;
	int failed; /* exit code for a mistake on the command line: PF_EXIT_FAILED, or runc's for OCI verbs */
	char **argv; /* the whole command line */
};
extern struct pf_globals pf_globals;

struct pf_verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *args, *summary; /* for --help */
};

struct pf_digest;
/* See pf_ckpt_open_manifest: asks pinfold-store. */
int pf_open_sealed_manifest(int storefd, const struct pf_digest *digest, const char *sealed,
	size_t sealed_len, char **text, size_t *len, struct pf_err *err);

/* Print the error where errors go and return its exit code. */
int pf_report(const struct pf_err *err);
/* The same for a message of another level ("warning"). */
void pf_log(const char *level, const char *msg);
/* A mistake on the command line: text and a pointer to the verb's help; returns pf_globals.failed. */
int pf_usage(const char *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* getopt_long for a verb: "--help" prints help and exits; an unknown option is reported with the nearest
 * known one and exits. Operands may stand between options, unless stop_at_operand. Returns what getopt_long
 * returns. */
int pf_getopt(int argc, char **argv, const struct option *options, bool stop_at_operand, const char *help);

/* Print one JSON object and a newline to standard output, and delete it. Pretty on a terminal. */
void pf_print_json(cJSON *j);
/* Send what was printed to standard output on its way. Returns code, or PF_EXIT_FAILED after a message when
 * it could not be written (then code, if that is a failure already). done, when not NULL, says in the message
 * what was done nevertheless. main() calls it at the end of every verb. */
int pf_finish_output(int code, const char *done);
/* A warning, where messages go. */
void pf_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Replace this process by the helper program with the given arguments ("image", "ls", …, NULL-terminated)
 * behind
 * --store. Returns only on failure, with its exit code. */
int pf_exec_helper(const char *program, char *const argv[]);

int pf_cmd_create(int argc, char **argv);
int pf_cmd_exec(int argc, char **argv);
int pf_cmd_destroy(int argc, char **argv);
int pf_cmd_state(int argc, char **argv);
int pf_cmd_list(int argc, char **argv);
int pf_cmd_pause(int argc, char **argv);
int pf_cmd_resume(int argc, char **argv);
int pf_cmd_snapshot(int argc, char **argv);
int pf_cmd_fork(int argc, char **argv);
int pf_cmd_diff(int argc, char **argv);
int pf_cmd_image(int argc, char **argv);
int pf_cmd_checkpoint(int argc, char **argv);
int pf_cmd_logs(int argc, char **argv);
int pf_cmd_policy(int argc, char **argv);
int pf_cmd_gc(int argc, char **argv);
int pf_cmd_doctor(int argc, char **argv);
int pf_cmd_stats(int argc, char **argv);
int pf_cmd_run(int argc, char **argv);
int pf_cmd_start(int argc, char **argv);
int pf_cmd_kill(int argc, char **argv);
int pf_cmd_delete(int argc, char **argv);
int pf_cmd_ps(int argc, char **argv);
int pf_cmd_update(int argc, char **argv);
int pf_cmd_events(int argc, char **argv);
int pf_cmd_features(int argc, char **argv);
int pf_cmd_spec(int argc, char **argv);
int pf_cmd_on_work(int argc, char **argv);
int pf_cmd_cp(int argc, char **argv);
int pf_cmd_no_checkpoint(int argc, char **argv);

#endif
