#include "sandbox/spec_write.h"

#include "sandbox/caps.h"

void pf_spec_add_rlimit(cJSON *limits, const char *type, uint64_t soft, uint64_t hard)
{
	cJSON *r = cJSON_CreateObject();

	cJSON_AddStringToObject(r, "type", type);
	cJSON_AddNumberToObject(r, "soft", (double)soft);
	cJSON_AddNumberToObject(r, "hard", (double)hard);
	cJSON_AddItemToArray(limits, r);
}

cJSON *pf_spec_cap_names(uint64_t mask)
{
	cJSON *a = cJSON_CreateArray();

	for (unsigned c = 0; c < 64; c++)
		if ((mask & PF_CAP_BIT(c)) && pf_cap_name(c))
			cJSON_AddItemToArray(a, cJSON_CreateString(pf_cap_name(c)));
	return a;
}
