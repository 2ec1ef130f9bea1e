/* pinfold-store: started by pinfold for what needs archives, hashes or compression, and by hand for the same.
 *
 *   pinfold-store [--root R] [--store S] [--share D] [--log-format text|json] VERB [ARGUMENT]... */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"
#include "base/json.h"
#include "cmd/pinfold-store/verbs.h"

struct pf_store_globals pf_store = {.root = "/run/pinfold", .store = "/var/lib/pinfold", .share = NULL};

static bool json_errors;

static const struct pf_store_verb *const tables[] = {pf_image_verbs, pf_checkpoint_verbs};

int pf_store_error(const char *verb, const struct pf_err *err)
{
	if (json_errors) {
		PF_JSON cJSON *j = cJSON_CreateObject();
		cJSON_AddStringToObject(j, "level", "error");
		cJSON_AddStringToObject(j, "kind", pf_err_kind_name(err->kind));
		cJSON_AddStringToObject(j, "msg", err->msg);
		PF_FREE char *text = pf_json_text(j);
		fprintf(stderr, "%s\n", text);
	} else {
		fprintf(stderr, "pinfold: %s: %s\n", verb, err->msg);
	}
	return 125;
}

static void usage(FILE *f)
{
	fputs("usage: pinfold-store [--root DIR] [--store DIR] [--share DIR] [--log-format text|json] VERB "
	      "...\n\n",
		f);
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct pf_store_verb *v = tables[t]; v->name; v++)
			fprintf(f, "  %s %s\n", v->name, v->help ? v->help : "");
}

/* How many words of argv are this verb's name; 0 when it is another. */
static int matches(const char *name, int argc, char **argv)
{
	const char *space = strchr(name, ' ');

	if (!space)
		return argc >= 1 && strcmp(name, argv[0]) == 0;
	size_t n = (size_t)(space - name);
	return argc >= 2 && strlen(argv[0]) == n && strncmp(name, argv[0], n) == 0 &&
			       strcmp(space + 1, argv[1]) == 0
		       ? 2
		       : 0;
}

static int dispatch(int argc, char **argv)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (const struct pf_store_verb *v = tables[t]; v->name; v++) {
			int words = matches(v->name, argc, argv);
			if (words > 0)
				return v->fn(argc - words + 1, argv + words - 1);
		}
	}
	fprintf(stderr, "pinfold-store: unknown verb '%s%s%s'\n", argv[0], argc > 1 ? " " : "",
		argc > 1 ? argv[1] : "");
	return 125;
}

static int global_option(char **argv, int *i)
{
	const struct {
		const char *name;
		const char **slot;
	} options[] = {
		{"--root", &pf_store.root}, {"--store", &pf_store.store}, {"--share", &pf_store.share}};
	const char *value;

	for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++) {
		size_t n = strlen(options[k].name);
		if (strncmp(argv[*i], options[k].name, n) != 0 || (argv[*i][n] && argv[*i][n] != '='))
			continue;
		value = argv[*i][n] == '=' ? argv[*i] + n + 1 : argv[++*i];
		if (!value || !*value)
			return -1;
		*options[k].slot = value;
		return 0;
	}
	if (strcmp(argv[*i], "--log-format") == 0 && argv[*i + 1]) {
		json_errors = strcmp(argv[++*i], "json") == 0;
		return 0;
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	int i = 1;

	/* A reader that went away is an error to report, not a silent end that leaves work half done. */
	signal(SIGPIPE, SIG_IGN);
	/* Trees are walked by descriptors, one per level. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			usage(stdout);
			return 0;
		}
		if (global_option(argv, &i) < 0) {
			fprintf(stderr, "pinfold-store: unknown option or missing value: %s\n",
				argv[i] ? argv[i] : "");
			return 125;
		}
	}
	if (i >= argc) {
		usage(stderr);
		return 125;
	}
	return dispatch(argc - i, argv + i);
}
