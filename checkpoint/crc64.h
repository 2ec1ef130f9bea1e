/* CRC-64 of ISO 3309, reflected, as Go's hash/crc64 has it: what tar-split compares files with. Pure. */
#ifndef PF_CHECKPOINT_CRC64_H
#define PF_CHECKPOINT_CRC64_H

#include <stddef.h>
#include <stdint.h>

/* Of what crc was the sum of (0: of nothing) and these bytes after it. */
uint64_t pf_crc64(uint64_t crc, const void *data, size_t len);

#endif
