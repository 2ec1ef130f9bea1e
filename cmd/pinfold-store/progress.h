/* Progress of long work, for the person at the terminal. */
#ifndef PF_CMD_STORE_PROGRESS_H
#define PF_CMD_STORE_PROGRESS_H

/* Where the descriptor is a terminal: say on it, five times a second and from the first half second on, how
 * far base/progress.h has come. what: a word to begin with. Elsewhere nothing is shown. */
void pf_show_begin(int fd, const char *what);
/* Stop, and leave nothing of it on the screen. Without pf_show_begin() this does nothing. */
void pf_show_end(void);

#endif
