/* Shared by the checkpoint verbs of pinfold-store. */
#ifndef PF_CMD_STORE_CHECKPOINT_H
#define PF_CMD_STORE_CHECKPOINT_H

int pf_cmd_snapshot_write(int argc, char **argv);   /* checkpoint_write.c */
int pf_cmd_diff(int argc, char **argv);             /* checkpoint_diff.c */
int pf_cmd_checkpoint_prune(int argc, char **argv); /* checkpoint_keep.c */
int pf_cmd_checkpoint_stats(int argc, char **argv);
int pf_cmd_checkpoint_export(int argc, char **argv); /* checkpoint_move.c */
int pf_cmd_checkpoint_import(int argc, char **argv);
extern const char pf_prune_help[], pf_stats_help[], pf_export_help[], pf_import_help[];
int pf_cmd_checkpoint_encryption(int argc, char **argv); /* checkpoint_keys.c */
int pf_cmd_checkpoint_rotate_key(int argc, char **argv);
int pf_cmd_manifest_open(int argc, char **argv);
extern const char pf_encryption_help[], pf_rotate_help[];

/* On standard error, that a collection kept what it could not judge, if so. */
struct pf_ckpt_gc_stats;
void pf_checkpoint_tell_kept(const char *verb, const struct pf_ckpt_gc_stats *s);

/* Deep trees need a descriptor per level: raise the soft limit to the hard one. */
void pf_checkpoint_raise_nofile(void);

#endif
