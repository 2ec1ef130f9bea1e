/* Theory of operation: eight bytes a step. table[k][b] is what byte b does to the sum when k more bytes
 * follow it, so that the eight of a step are looked up side by side. */
#include "checkpoint/crc64.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

#define POLYNOMIAL UINT64_C(0xd800000000000000)

static uint64_t table[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(void)
{
	for (unsigned b = 0; b < 256; b++) {
		uint64_t v = b;
		for (int i = 0; i < 8; i++)
			v = v & 1 ? v >> 1 ^ POLYNOMIAL : v >> 1;
		table[0][b] = v;
	}
	for (unsigned b = 0; b < 256; b++)
		for (int k = 1; k < 8; k++)
			table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
}

uint64_t pf_crc64(uint64_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	pthread_once(&once, fill);
	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8) {
		uint64_t v, next = 0;
		memcpy(&v, p, sizeof(v));
		v = le64toh(v) ^ crc;
		for (unsigned k = 0; k < 8; k++)
			next ^= table[7 - k][v >> (8 * k) & 0xff];
		crc = next;
	}
	for (; len > 0; len--, p++)
		crc = table[0][(crc ^ *p) & 0xff] ^ crc >> 8;
	return ~crc;
}
