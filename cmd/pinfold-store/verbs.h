/* The verbs of pinfold-store, the helper that pinfold runs for whatever needs archives, hashes or
 * compression. */
#ifndef PF_CMD_STORE_VERBS_H
#define PF_CMD_STORE_VERBS_H

#include <getopt.h>
#include <stdbool.h>

struct pf_store_verb {
	const char *name; /* one or two words: "gc", "image import" */
	/* argv[0] is the verb's last word; returns the exit code (0, or 125 after printing one line to
	 * stderr). */
	int (*fn)(int argc, char **argv);
	const char *help; /* "SOURCE [--name NAME]   what it does": three blanks before what, whose first line
			     is for lists */
};

/* Each ends with an entry whose name is NULL. */
extern const struct pf_store_verb pf_image_verbs[];      /* image.c */
extern const struct pf_store_verb pf_checkpoint_verbs[]; /* checkpoint.c */

/* Set from the global options before a verb runs. */
struct pf_store_globals {
	const char *root;  /* --root, /run/pinfold */
	const char *store; /* --store, /var/lib/pinfold */
	bool decrypt;      /* PINFOLD_DECRYPT: what is encrypted may leave the store in clear */
	const char *key;   /* --key, PINFOLD_KEY: how the store's key is to be had; NULL: as the store says */
	const char *share; /* --share: where images/ with recipes lies */
};
extern struct pf_store_globals pf_store;

struct pf_err;
/* Say "VERB: message" where errors go (--log, --log-format; verb may be NULL) and return 125. */
int pf_store_error(const char *verb, const struct pf_err *err);
/* getopt_long, options between operands and the end of options ("--") included; set optind to 0 before the
 * first call. An unknown option or a missing value is reported, and '?' returned. */
int pf_store_getopt(const char *verb, int argc, char **argv, const struct option *options);
/* For what needs root: who is not becomes root over his own files, in a user namespace. The store's key is
 * fetched before. Before there are threads, and before the store is opened. UNSUPPORTED where the machine
 * does not let him. */
int pf_store_own_root(struct pf_err *err);
/* The same for what is better done by root: where the machine does not let him, he stays who he is. An error
 * is that he is neither. */
int pf_store_may_own_root(struct pf_err *err);
/* Say how the verb is called (the part of its help before three blanks) and return 125. */
int pf_store_usage(const char *verb, const char *help);

#endif
