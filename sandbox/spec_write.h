/* Pieces of an OCI configuration, for those who write one. */
#ifndef PF_SANDBOX_SPEC_WRITE_H
#define PF_SANDBOX_SPEC_WRITE_H

#include <cjson/cJSON.h>
#include <stdint.h>

/* Append to process.rlimits. */
void pf_spec_add_rlimit(cJSON *limits, const char *type, uint64_t soft, uint64_t hard);
/* A set of process.capabilities: the names of those in mask. The caller's. */
cJSON *pf_spec_cap_names(uint64_t mask);

#endif
