/* Run a command that is not trusted, give it some input, read its output, end it if it takes too long.
 *
 *   cc -o run_untrusted run_untrusted.c -lpinfold -lcjson && ./run_untrusted 'wc -c; ls /home'
 *
 * See pinfold.h for the calls and docs/jail.md for the configuration. */
#include <err.h>
#include <pinfold.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char config[] =
		"{\"command\": [\"sh\", \"-c\", \"%s\"],"
		" \"limits\": {\"timeout\": \"10s\", \"memory\": \"256M\", \"pids\": 32}}";
	const struct pinfold_stdio io = {.kind = {PINFOLD_PIPE, PINFOLD_PIPE, PINFOLD_INHERIT}};
	char why[PINFOLD_ERROR_SIZE], text[4096], chunk[4096];
	pinfold_process *p;
	pinfold_result r;
	ssize_t n;

	if (argc != 2 || strpbrk(argv[1], "\"\\"))
		errx(2, "usage: run_untrusted COMMAND   (without quotation marks and backslashes)");
	(void)snprintf(text, sizeof(text), config, argv[1]);
	p = pinfold_spawn(text, &io, why);
	if (!p)
		errx(1, "%s", why);
	if (write(pinfold_stream_fd(p, 0), "hello\n", 6) < 0)
		warn("write");
	pinfold_close_stream(p, 0);
	while ((n = read(pinfold_stream_fd(p, 1), chunk, sizeof(chunk))) > 0)
		printf("it says: %.*s", (int)n, chunk);
	if (pinfold_wait(p, &r, why) < 0)
		errx(1, "%s", why);
	printf("exit code %d%s%s after %.1f ms\n", r.exit_code, r.limit ? ", limit: " : "",
		r.limit ? r.limit : "", (double)r.wall_us / 1000);
	pinfold_result_free(&r);
	pinfold_free(p);
	return 0;
}
