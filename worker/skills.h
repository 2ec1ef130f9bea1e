/* The skills of a session's agent, as directories below its working directory. */
#ifndef PF_WORKER_SKILLS_H
#define PF_WORKER_SKILLS_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "worker/box.h"
#include "worker/http.h"

struct pf_skills {
	struct pf_skill {
		char *id, *version; /* as they stand in a path */
		char *dir;          /* one path component, below skills */
	} * list;
	size_t n;
};

/* Ask what versions the session's skills are, and so what their directories are called. One that cannot be
 * known is logged and left out. */
void pf_skills_resolve(struct pf_http *h, const char *bearer, const cJSON *session, struct pf_skills *s);
/* Fetch them into the sandbox. One that cannot be is logged, and the others are brought all the same. */
void pf_skills_install(const struct pf_skills *s, struct pf_http *h, const char *bearer,
	const struct pf_box_opts *o, const char *id);
/* Remove their directories, and what an earlier try has left. */
void pf_skills_remove(const struct pf_skills *s, const struct pf_box_opts *o, const char *id);
void pf_skills_done(struct pf_skills *s);

#endif
