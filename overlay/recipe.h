/* Reading image recipes (images/README.md) and the machine's apt sources. Light, but only `image build` uses
 * it. */
#ifndef PF_OVERLAY_RECIPE_H
#define PF_OVERLAY_RECIPE_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"

struct pf_recipe_file {
	char *path, *content;
	mode_t mode;
};

/* A recipe with those of its bases merged in. */
struct pf_recipe {
	char *name;      /* of the directory */
	char **packages; /* Debian's: sorted, each once, NULL-terminated */
	cJSON *others;   /* of other managers, as packages.h has them; an object, perhaps empty */
	struct pf_recipe_file *files;
	size_t n_files;
	char **env, **cmd, **entrypoint; /* NULL when nothing says so */
	char *workdir, *user;
};

/* dir holds recipe.json; bases are its neighbours. Errors name the file and the key. */
int pf_recipe_load(const char *dir, struct pf_recipe *r, struct pf_err *err);
void pf_recipe_done(struct pf_recipe *r);

/* The OCI image configuration of an image made from r. */
cJSON *pf_recipe_config(const struct pf_recipe *r, const char *diff_id, time_t created);

/* The machine's apt sources of its own release, as deb822 text without passwords, and the release's code
 * name. Both malloc'ed. root: where etc/ is looked up, "" for the machine itself. */
int pf_apt_sources_at(const char *root, char **suite, char **sources, struct pf_err *err);
static inline int pf_apt_sources(char **suite, char **sources, struct pf_err *err)
{
	return pf_apt_sources_at("", suite, sources, err);
}

#endif
