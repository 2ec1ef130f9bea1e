/* libpinfold: run a command that is not trusted in a box of its own, from a C program.
 *
 *	pinfold_process *p;
 *	pinfold_result r;
 *	char why[PINFOLD_ERROR_SIZE];
 *
 *	p = pinfold_spawn("{\"command\": [\"make\", \"test\"], \"files\": [{\"rw\": \".\"}]}", NULL, why);
 *	if (!p || pinfold_wait(p, &r, why) < 0)
 *		errx(1, "%s", why);
 *	printf("exit code %d\n", r.exit_code);
 *	pinfold_free(p);
 *
 * The box is built and served by the program pinfold-jail, which is started for each: a program with threads
 * cannot itself become what builds namespaces. The library has no state but in what it returns; different
 * pinfold_process objects may be used by different threads at the same time, one of them by one thread at a
 * time. Nothing here changes signal handlers, environment or working directory; SIGPIPE is never raised.
 *
 * Strings are UTF-8. A function that can fail returns -1 or NULL and puts one line into why, an array of at
 * least PINFOLD_ERROR_SIZE bytes, which may be NULL. The configuration's keys are those of docs/jail.md. */
#ifndef PINFOLD_H
#define PINFOLD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PINFOLD_ERROR_SIZE 1024

typedef struct pinfold_process pinfold_process;

/* Where the command's standard input, output and error come from and go to. */
enum pinfold_stream {
	PINFOLD_INHERIT = 0, /* the caller's own */
	PINFOLD_NULL,        /* /dev/null */
	PINFOLD_PIPE,        /* a pipe whose other end pinfold_stream_fd() gives */
	PINFOLD_FD           /* a descriptor of the caller's, which stays the caller's */
};

struct pinfold_stdio {
	enum pinfold_stream kind[3];
	int fd[3]; /* of those that are PINFOLD_FD */
};

/* All owned by the caller after pinfold_wait, given back by pinfold_result_free. */
typedef struct {
	int exit_code; /* the command's; 128 + signal; 124 timed out; 137 killed for memory */
	int signal;    /* that ended it, or 0 */
	char *limit;   /* "timeout", "memory", or NULL */
	int64_t wall_us, cpu_us, memory_peak;
	char *json; /* all of it, with what was denied and what was written to overlays */
} pinfold_result;

/* The version of the library, "0.1.0". */
const char *pinfold_version(void);

/* Start a command. Returns when it runs, or NULL when it could not be started: bad configuration, a command
 * that is not there, a machine that cannot. stdio NULL: all inherited. */
pinfold_process *pinfold_spawn(const char *config_json, const struct pinfold_stdio *stdio, char *why);

/* Our end of a pipe: of 0 to write to, of 1 and 2 to read from; -1 when it is no pipe. It belongs to the
 * process object; pinfold_close_stream closes it (the command's input then ends). */
int pinfold_stream_fd(const pinfold_process *p, int stream);
void pinfold_close_stream(pinfold_process *p, int stream);

/* The first process of the box, as the caller sees it. */
pid_t pinfold_pid(const pinfold_process *p);
/* Readable (poll) when pinfold_wait would not block. It belongs to the process object. */
int pinfold_poll_fd(const pinfold_process *p);

/* Send a signal to the command. */
int pinfold_kill(pinfold_process *p, int sig, char *why);
/* Change what it may reach: a `networking` object. Only for one that was started with a network. Connections
 * that the new policy would not admit are reset. */
int pinfold_policy_set(pinfold_process *p, const char *networking_json, char *why);

/* Make a checkpoint of what was written so far, in the configuration's "store" (see docs/jail.md, --keep).
 * Only for one that was started with an overlay; its processes stand still for a moment. *json, if json is
 * not NULL, is what is known of the checkpoint, to be given back by free(). */
int pinfold_snapshot(pinfold_process *p, const char *name, char **json, char *why);

/* Wait for the end. Afterwards only pinfold_stream_fd and pinfold_free make sense. */
int pinfold_wait(pinfold_process *p, pinfold_result *result, char *why);
void pinfold_result_free(pinfold_result *result);

/* End the command if it still runs, and release everything. NULL is fine. */
void pinfold_free(pinfold_process *p);

#ifdef __cplusplus
}
#endif

#endif
