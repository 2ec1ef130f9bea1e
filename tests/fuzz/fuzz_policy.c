/* Policies: what compiles must answer every question, and say of itself what it is. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "netpolicy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[] = {
		"a", "a.example.com", "x.y.z.example.com", "xn--bcher-kva.example"};
	struct pf_err err = PF_ERR_INIT;
	char *text = malloc(len + 1);
	const struct pf_rule *rule;

	memcpy(text, data, len);
	text[len] = '\0';
	cJSON *j = pf_json_parse("policy", text, len, &err);
	free(text);
	struct pf_policy *p = j ? pf_policy_compile(j, &err) : NULL;
	if (p) {
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
			enum pf_verdict v = pf_policy_host(p, names[i], 443, &rule);
			/* What is allowed on a port exists. */
			if (v == PF_VERDICT_ALLOW &&
				(!rule || pf_policy_host(p, names[i], 0, &rule) != PF_VERDICT_ALLOW))
				abort();
			(void)pf_policy_host_udp(p, names[i], 53, &rule);
		}
		struct sockaddr_in sa = {
			.sin_family = AF_INET, .sin_port = htons(80), .sin_addr = {htonl(0x0a000001)}};
		enum pf_verdict v = pf_policy_addr(p, (struct sockaddr *)&sa, IPPROTO_TCP, NULL, &rule);
		cJSON *d = pf_policy_describe(p);
		/* Nothing private is open that was not opened: by the rule, or by a network of the policy's,
		 * which may be a part of the rule's. */
		if (v == PF_VERDICT_ALLOW && !pf_policy_cidr_private(p, rule) && rule->host == NULL &&
			pf_policy_type(p) == PF_POLICY_LIMITED &&
			cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(d, "allow_private")) == 0)
			abort();
		size_t n;
		free(pf_policy_host_ports(p, false, &n));
		pf_strv_free(pf_policy_ca_names(p));
		free(pf_json_text(d));
		cJSON_Delete(d);
		pf_policy_unref(p);
	} else if (!*err.msg) {
		abort();
	}
	cJSON_Delete(j);
	return 0;
}
