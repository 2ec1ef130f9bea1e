/* Promises: a sound layer comes out exactly (names as bytes, times, owners, attributes, holes, links,
 * whiteouts), from every common writer and compression; a hostile or damaged one is refused with the reason,
 * and nothing outside the destination is touched. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "overlay/pack.h"
#include "overlay/unpack.h"

static char dir_path[64];
static int dest = -1;

static int setup(void **state)
{
	char path[96];

	(void)state;
	snprintf(dir_path, sizeof(dir_path), "/tmp/pf-test-unpack-%d", (int)getpid());
	snprintf(path, sizeof(path), "%s/dest", dir_path);
	if (mkdir(dir_path, 0700) < 0 || mkdir(path, 0755) < 0)
		return -1;
	dest = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dest < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	close(dest);
	return pf_rm_rf_at(AT_FDCWD, dir_path, &err);
}

static void need(const char *program)
{
	if (geteuid() != 0 || access(program, X_OK) < 0) {
		print_message("skipped: needs root and %s\n", program);
		skip();
	}
}

/* Run Python in our directory; t is an open tarfile "a.tar", add(name, **attributes) puts a member in. */
static void python(const char *body)
{
	static const char head[] =
		"import tarfile, io, os, sys\n"
		"os.chdir(sys.argv[1])\n"
		"t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)\n"
		"def add(name, data=b'', **kw):\n"
		"  i = tarfile.TarInfo(name)\n"
		"  i.size = len(data)\n"
		"  for k, v in kw.items(): setattr(i, k, v)\n"
		"  t.addfile(i, io.BytesIO(data))\n"
		"DIR, SYM, LNK = dict(type=tarfile.DIRTYPE, mode=0o755), tarfile.SYMTYPE, tarfile.LNKTYPE\n";
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *script = pf_asprintf("%s%s\nt.close()\n", head, body);
	char *argv[] = {"/usr/bin/python3", "-c", script, dir_path, NULL};

	need("/usr/bin/python3");
	if (pf_run(argv, NULL, &err) < 0)
		fail_msg("%s", err.msg);
}

static int unpack_file(const char *name, const struct pf_unpack_opts *opts, struct pf_unpack_stats *stats,
	struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/%s", dir_path, name);
	PF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return pf_unpack_layer(fd, dest, opts, stats, err);
}

static void unpack(const struct pf_unpack_opts *opts, struct pf_unpack_stats *stats)
{
	struct pf_err err = PF_ERR_INIT;

	if (unpack_file("a.tar", opts, stats, &err) < 0)
		fail_msg("%s", err.msg);
}

static void refused(const struct pf_unpack_opts *opts, enum pf_err_kind kind, const char *why)
{
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(unpack_file("a.tar", opts, NULL, &err), -1);
	if (err.kind != kind || !strstr(err.msg, why))
		fail_msg("expected '%s', got %s: %s", why, pf_err_kind_name(err.kind), err.msg);
}

static struct stat st_of(const char *path)
{
	struct stat st;

	if (fstatat(dest, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		fail_msg("%s: %s", path, strerror(errno));
	return st;
}

static bool missing(const char *path)
{
	return faccessat(dest, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

static bool whiteout(const char *path)
{
	struct stat st = st_of(path);

	return S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
}

static bool opaque(const char *path)
{
	PF_FREE char *full = pf_asprintf("%s/dest/%s", dir_path, path);
	char v = 0;

	return lgetxattr(full, "trusted.overlay.opaque", &v, 1) == 1 && v == 'y';
}

static void expect_text(const char *path, const char *want)
{
	PF_CLOSE int fd = openat(dest, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char buf[256] = "";

	assert_true(fd >= 0);
	assert_true(read(fd, buf, sizeof(buf) - 1) >= 0);
	assert_string_equal(buf, want);
}

static const struct pf_unpack_opts strict = {.strict = true};

/* ---- sound layers ---- */

static void test_everything(void **state)
{
	struct pf_unpack_stats stats;
	char buf[32] = "";

	(void)state;
	python("add('./', **DIR)\n"
	       "add('d/', **{**DIR, 'mode': 0o1777, 'uid': 7, 'gid': 8, 'mtime': 1000000000.25})\n"
	       "add('d/file', b'hello', mode=0o4755, uid=1000, gid=1001, mtime=1234567890.123456789,\n"
	       "    pax_headers={'mtime': '1234567890.123456789', 'SCHILY.xattr.user.a': 'b'})\n"
	       "add('d/hard', type=LNK, linkname='d/file')\n"
	       "add('d/sym', type=SYM, linkname='/etc/shadow', uid=5)\n"
	       "add('d/fifo', type=tarfile.FIFOTYPE, mode=0o600)\n"
	       "add('deep/er/x', b'1')\n"
	       "add('l' * 200 + '/' + 'm' * 250, b'long')\n");
	unpack(&strict, &stats);
	struct stat st = st_of("d/file"), hard = st_of("d/hard"), sym = st_of("d/sym"), d = st_of("d");
	assert_int_equal(st.st_mode, S_IFREG | 04755);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(st.st_gid, 1001);
	assert_int_equal(st.st_mtim.tv_sec, 1234567890);
	assert_int_equal(st.st_mtim.tv_nsec, 123456789);
	assert_int_equal(st.st_ino, hard.st_ino);
	assert_int_equal(st.st_nlink, 2);
	assert_true(S_ISLNK(sym.st_mode));
	assert_int_equal(sym.st_uid, 5);
	assert_int_equal(d.st_mode & 07777, 01777);
	assert_int_equal(d.st_uid, 7);
	assert_int_equal(d.st_mtim.tv_sec, 1000000000);
	assert_true(S_ISFIFO(st_of("d/fifo").st_mode));
	assert_int_equal(st_of("deep/er").st_mtim.tv_sec, 0);
	assert_int_equal(st_of("deep/er").st_mode & 07777, 0755);
	PF_FREE char *path = pf_asprintf("%s/dest/d/file", dir_path);
	assert_int_equal(getxattr(path, "user.a", buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], 'b');
	assert_int_equal(stats.entries, 8);
	assert_int_equal(stats.bytes, 5 + 1 + 4);
	assert_int_equal(stats.skipped_devices, 0);
}

/* Names are bytes: not UTF-8, decomposed (NFD) and odd ones come out as they went in. */
static void test_names_are_bytes(void **state)
{
	(void)state;
	python("add('n/e\\u0301', b'nfd')\n" /* a decomposed é must not be composed */
	       "t.close()\n"
	       "t = tarfile.open('a.tar', 'a', format=tarfile.GNU_FORMAT, encoding='latin-1')\n"
	       "add('n/' + ''.join(map(chr, list(range(1, 47)) + list(range(48, 256)))), b'all')\n"
	       "add('n/' + '\\xff' * 255, b'long')\n");
	unpack(&strict, NULL);
	expect_text("n/e\xcc\x81", "nfd");
	char all[260] = "n/";
	size_t n = 2;
	for (int c = 1; c < 256; c++)
		if (c != '/')
			all[n++] = (char)c;
	all[n] = '\0';
	expect_text(all, "all");
	char longest[260] = "n/";
	memset(longest + 2, 0xff, 255);
	longest[257] = '\0';
	expect_text(longest, "long");
}

static void test_whiteouts(void **state)
{
	(void)state;
	python("add('a/.wh.gone', b'')\n"
	       "add('a/.wh..wh..opq', b'')\n"
	       "add('top', b'1')\n"
	       "add('.wh.below', b'')\n"
	       /* removed below and made anew here, in both orders */
	       "add('b/.wh.x', b'')\nadd('b/x', b'new')\n"
	       "add('b/y', b'new')\nadd('b/.wh.y', b'')\n"
	       "add('b/.wh.dx', b'')\nadd('b/dx/', **DIR)\n"
	       "add('b/dy/', **DIR)\nadd('b/.wh.dy', b'')\n"
	       "add('b/.wh.dz', b'')\nadd('b/dz/f', b'')\n");
	unpack(NULL, NULL);
	assert_true(whiteout("a/gone"));
	assert_true(opaque("a"));
	assert_true(whiteout("below"));
	expect_text("b/x", "new");
	expect_text("b/y", "new");
	assert_true(opaque("b/dx") && opaque("b/dy") && opaque("b/dz"));
	assert_false(opaque("b"));
	assert_true(missing("a/.wh.gone"));
}

static void test_compressions(void **state)
{
	static const char *const tools[] = {"gzip", "xz", "zstd"};
	struct pf_unpack_stats plain, packed;

	(void)state;
	python("add('f', b'x' * 100000)\n");
	unpack(NULL, &plain);
	assert_string_equal(plain.digest, plain.diff_id);
	for (size_t i = 0; i < 3; i++) {
		struct pf_err err = PF_ERR_INIT;
		PF_FREE char *cmd = pf_asprintf("cd %s && %s -c a.tar >a.packed", dir_path, tools[i]);
		char *argv[] = {"/bin/sh", "-c", cmd, NULL};
		if (pf_run(argv, NULL, &err) < 0)
			fail_msg("%s", err.msg);
		if (unpack_file("a.packed", NULL, &packed, &err) < 0)
			fail_msg("%s", err.msg);
		assert_string_equal(packed.diff_id, plain.diff_id);
		assert_string_not_equal(packed.digest, plain.digest);
		/* And cut short, it is an error whatever the compression. */
		PF_FREE char *path = pf_asprintf("%s/a.packed", dir_path);
		assert_int_equal(truncate(path, packed.archive_bytes - 6), 0);
		assert_int_equal(unpack_file("a.packed", NULL, NULL, &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
	}
}

/* GNU tar's own sparse formats, all four, keep content and holes. */
static void test_gnu_sparse(void **state)
{
	static const char *const formats[] = {"--format=gnu -S", "--format=pax -S --sparse-version=0.0",
		"--format=pax -S --sparse-version=0.1", "--format=pax -S --sparse-version=1.0"};

	(void)state;
	need("/usr/bin/python3");
	python("f = open('big', 'wb')\n"
	       "for i in range(30): f.seek(i * 40000000); f.write(b'%05d' % i)\n"
	       "f.truncate(2000000000); f.close()\n");
	for (size_t i = 0; i < 4; i++) {
		struct pf_err err = PF_ERR_INIT;
		PF_FREE char *cmd = pf_asprintf("cd %s && tar cf a.tar %s big", dir_path, formats[i]);
		char *argv[] = {"/bin/sh", "-c", cmd, NULL};
		char buf[8] = "";
		if (pf_run(argv, NULL, &err) < 0)
			fail_msg("%s", err.msg);
		unpack(NULL, NULL);
		struct stat st = st_of("big");
		assert_int_equal(st.st_size, 2000000000);
		assert_true(st.st_blocks < 4096);
		PF_CLOSE int fd = openat(dest, "big", O_RDONLY | O_CLOEXEC);
		assert_int_equal(pread(fd, buf, 5, 29 * 40000000L), 5);
		assert_string_equal(buf, "00029");
		assert_int_equal(unlinkat(dest, "big", 0), 0);
	}
}

/* Paths longer than PATH_MAX are walked by component. */
static void test_deeper_than_path_max(void **state)
{
	(void)state;
	python("p = '/'.join(['d' * 100] * 100)\n"
	       "add(p + '/f', b'deep')\n"
	       "add(p + '/g', type=LNK, linkname=p + '/f')\n");
	unpack(&strict, NULL);
	int fd = fcntl(dest, F_DUPFD_CLOEXEC, 3);
	char name[101];
	memset(name, 'd', 100);
	name[100] = '\0';
	for (int i = 0; i < 100; i++) {
		int next = openat(fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	struct stat st;
	assert_int_equal(fstatat(fd, "g", &st, 0), 0);
	assert_int_equal(st.st_nlink, 2);
	close(fd);
}

/* Capabilities are kept, overlay's and other foreign attributes never. */
static void test_xattrs(void **state)
{
	struct pf_unpack_stats stats;
	char buf[64];

	(void)state;
	python("cap = b'\\x01\\x00\\x00\\x02\\x00\\x20\\x00\\x00' + b'\\x00' * 12\n"
	       "h = {'SCHILY.xattr.security.capability': cap.decode('latin-1'), "
	       "'SCHILY.xattr.trusted.overlay.redirect': '/etc',\n"
	       "  'SCHILY.xattr.user.overlay.opaque': 'y', 'SCHILY.xattr.trusted.x': '1', "
	       "'SCHILY.xattr.security.selinux': 's'}\n"
	       "add('bin', b'x', mode=0o755, pax_headers=h)\n");
	unpack(NULL, &stats);
	PF_FREE char *path = pf_asprintf("%s/dest/bin", dir_path);
	assert_int_equal(getxattr(path, "security.capability", buf, sizeof(buf)), 20);
	assert_int_equal(stats.dropped_xattrs, 4);
	assert_true(getxattr(path, "trusted.overlay.redirect", buf, sizeof(buf)) < 0);
	assert_int_equal(unlinkat(dest, "bin", 0), 0);
	refused(&strict, PF_ERR_CORRUPT, "overlay attributes");
}

/* In images the later of two entries wins, as other runtimes have it; in checkpoints there are none. */
static void test_duplicates(void **state)
{
	(void)state;
	python("add('f', b'first')\nadd('f', b'second')\n"
	       "add('d/', **DIR)\nadd('d/x', b'')\nadd('d', b'now a file')\n"
	       "add('s', type=SYM, linkname='d2')\nadd('s/', **DIR)\nadd('s/in', b'')\n");
	unpack(NULL, NULL);
	expect_text("f", "second");
	expect_text("d", "now a file");
	assert_true(S_ISDIR(st_of("s").st_mode));
	assert_true(missing("d2"));
	python("add('f', b'first')\nadd('f', b'second')\n");
	struct pf_err err = PF_ERR_INIT;
	assert_int_equal(pf_rm_rf_at(dest, "f", &err), 0);
	refused(&strict, PF_ERR_CORRUPT, "given twice");
}

static void test_devices(void **state)
{
	struct pf_unpack_stats stats;

	(void)state;
	python("add('dev/sda', type=tarfile.BLKTYPE, devmajor=8, devminor=0)\n"
	       "add('dev/null', type=tarfile.CHRTYPE, devmajor=1, devminor=3)\n"
	       "add('fake-whiteout', type=tarfile.CHRTYPE, devmajor=0, devminor=0)\n"
	       "add('f', b'1')\n");
	unpack(NULL, &stats);
	assert_int_equal(stats.skipped_devices, 3);
	assert_true(missing("dev/sda") && missing("dev/null") && missing("fake-whiteout"));
	expect_text("f", "1");
	refused(&strict, PF_ERR_CORRUPT, "device node");
}

/* ---- hostile ones ---- */

/* Each is refused, and the file outside that it aims at is as before. */
static void test_hostile(void **state)
{
	static const struct {
		const char *script, *why;
	} cases[] = {
		{"add('../evil', b'x')", "'..'"},
		{"add('a/../../evil', b'x')", "'..'"},
		{"add('a/..', **DIR)", "'..'"},
		{"add('up', type=SYM, linkname='..')\nadd('up/evil', b'x')", "symbolic link"},
		{"add('up', type=SYM, linkname='..')\nadd('up/d/evil', b'x')", "symbolic link"},
		{"add('abs', type=SYM, linkname=os.getcwd())\nadd('abs/evil', b'x')", "symbolic link"},
		{"add('abs', type=SYM, linkname=os.getcwd())\nadd('abs/victim', type=LNK, "
		 "linkname='abs/victim')",
			"symbolic link"},
		{"add('h', type=LNK, linkname='../victim')", "'..'"},
		{"add('h', type=LNK, linkname='nowhere')", "not in this layer"},
		{"add('s', type=SYM, linkname='..')\nadd('h', type=LNK, linkname='s/victim')",
			"symbolic link"},
		{"add('d/', **DIR)\nadd('h', type=LNK, linkname='d')", "no file of this layer"},
		{"add('.wh..', b'')", "whiteout without a name"},
		{"add('.wh...', b'')", "whiteout without a name"},
		{"add('.wh.', b'')", "whiteout without a name"},
		{"add('.wh.d/f', b'')", "whiteout name"},
		{"add('s', type=SYM, linkname='..')\nadd('s/.wh.victim', b'')", "symbolic link"},
		{"add('s', type=SYM, linkname='..')\nadd('s/.wh..wh..opq', b'')", "symbolic link"},
		{"add('f', b'x')\nadd('f/g', b'x')", "not a directory"},
		{"add('.wh.x', b'')\nadd('h', type=LNK, linkname='x')", "no file of this layer"},
		{"add('x' * 256, b'')", "longer than 255"},
		{"add('d/' * 9000 + 'f', b'x')", "8192 levels"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pf_err err = PF_ERR_INIT;
		PF_FREE char *script = pf_asprintf("open('victim', 'w').write('alive')\n%s", cases[i].script);
		PF_FREE char *victim = pf_asprintf("%s/victim", dir_path);
		PF_FREE char *evil = pf_asprintf("%s/evil", dir_path);
		PF_FREE char *text = NULL;
		struct stat st;
		python(script);
		assert_int_equal(pf_rm_rf_at(AT_FDCWD, evil, &err), 0);
		int r = unpack_file("a.tar", NULL, NULL, &err);
		if (r == 0 || err.kind != PF_ERR_CORRUPT || !strstr(err.msg, cases[i].why))
			fail_msg("%s\nexpected '%s', got %s", cases[i].script, cases[i].why,
				r == 0 ? "success" : err.msg);
		assert_int_equal(pf_read_file_at(AT_FDCWD, victim, 100, &text, NULL, &err), 0);
		assert_string_equal(text, "alive");
		assert_int_equal(stat(victim, &st), 0);
		assert_int_equal(st.st_nlink, 1);
		assert_int_equal(access(evil, F_OK), -1);
		/* a clean destination for the next */
		PF_FREE char *path = pf_asprintf("%s/dest", dir_path);
		close(dest);
		assert_int_equal(pf_rm_rf_at(AT_FDCWD, path, &err), 0);
		assert_int_equal(mkdir(path, 0755), 0);
		dest = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
}

/* A leading '/' is dropped in images, as other runtimes do, and refused in checkpoints. */
static void test_absolute(void **state)
{
	(void)state;
	python("add('/abs/file', b'x')\n");
	unpack(NULL, NULL);
	expect_text("abs/file", "x");
	refused(&strict, PF_ERR_CORRUPT, "absolute");
}

/* Sizes are bounded before a byte is written: one terabyte of hole, many files, a bomb, too many entries. */
static void test_sizes(void **state)
{
	struct pf_unpack_opts few = {.max_entries = 10}, small = {.max_bytes = 1000000};

	(void)state;
	python("f = open('big', 'wb'); f.truncate(1 << 40); f.close()\n"
	       "os.system('tar cf b.tar -S --format=pax big; mv b.tar c.tar')\n"
	       "t.close(); os.rename('c.tar', 'a.tar'); t = open('big')\n");
	refused(NULL, PF_ERR_INVALID, "limit");
	assert_true(missing("big"));
	python("for i in range(11): add('f%d' % i, b'x' * 100000)\n");
	refused(&small, PF_ERR_INVALID, "limit");
	refused(&few, PF_ERR_INVALID, "more than 10 entries");
	python("add('f', b'', uid=65536)\n");
	refused(NULL, PF_ERR_INVALID, "65535");
}

/* Directories that an archive implies are counted like those it names, and so are the bytes to remember them.
 */
static void test_implied_directories(void **state)
{
	struct pf_unpack_opts few = {.max_entries = 10};
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *path = pf_asprintf("%s/dest", dir_path);

	(void)state;
	python("add('a/b/c/d/e/f/g/h/i/j/k', b'x')\n");
	refused(&few, PF_ERR_INVALID, "more than 10 entries");
	python("for i in range(40): add('%03d/' % i + '/'.join(['d' * 255] * 255), b'x')\n");
	/* In memory: a disk is slow with 8000 directories. */
	assert_int_equal(mount("pf-test", path, "tmpfs", 0, "size=256m"), 0);
	int memory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), saved = dest;
	dest = memory;
	int r = unpack_file("a.tar", NULL, NULL, &err);
	dest = saved;
	close(memory);
	umount2(path, MNT_DETACH);
	assert_int_equal(r, -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	assert_non_null(strstr(err.msg, "paths of the archive's directories"));
}

/* The end of an archive is two blocks of zeros for tar, one for some writers, and for others the end of the
 * file. */
static void test_ends(void **state)
{
	PF_FREE char *path = pf_asprintf("%s/a.tar", dir_path);

	(void)state;
	python("add('none', b'x')\n");
	assert_int_equal(truncate(path, 1024), 0);
	unpack(NULL, NULL);
	expect_text("none", "x");
	python("add('unpadded', b'x')\n");
	assert_int_equal(truncate(path, 513), 0);
	unpack(NULL, NULL);
	expect_text("unpadded", "x");
	python("add('one', b'x')\n");
	assert_int_equal(truncate(path, 1536), 0);
	unpack(NULL, NULL);
	expect_text("one", "x");
}

/* Damage anywhere: cut short, no end after extended headers, a flipped bit in a header, no archive at all. */
static void test_damaged(void **state)
{
	PF_FREE char *path = pf_asprintf("%s/a.tar", dir_path);

	(void)state;
	python("add('f', b'x' * 5000)\nadd('g', b'y')\n");
	assert_int_equal(truncate(path, 3000), 0);
	refused(NULL, PF_ERR_CORRUPT, "middle of a member");
	python("add('f' * 200, b'x' * 512)\n");
	assert_int_equal(truncate(path, 1024), 0);
	refused(NULL, PF_ERR_CORRUPT, "end mark is missing");
	python("add('f', b'x' * 512)\n");
	{
		PF_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
		assert_int_equal(pwrite(fd, "X", 1, 3), 1);
	}
	refused(NULL, PF_ERR_CORRUPT, "damaged header");
	assert_int_equal(truncate(path, 0), 0);
	refused(NULL, PF_ERR_CORRUPT, "empty");
	{
		PF_CLOSE int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		assert_int_equal(write(fd, "no archive\n", 11), 11);
	}
	refused(NULL, PF_ERR_CORRUPT, "middle of a member");
}

static void test_digests(void **state)
{
	struct pf_unpack_stats stats;
	struct pf_unpack_opts opts = {0};
	char wrong[PF_DIGEST_SIZE];

	(void)state;
	python("add('f', b'x')\n");
	unpack(NULL, &stats);
	opts.digest = stats.digest;
	opts.diff_id = stats.diff_id;
	unpack(&opts, NULL);
	memcpy(wrong, stats.digest, sizeof(wrong));
	wrong[20] = wrong[20] == '0' ? '1' : '0';
	opts.diff_id = wrong;
	refused(&opts, PF_ERR_CORRUPT, "diff id");
	opts.digest = wrong;
	refused(&opts, PF_ERR_CORRUPT, "digest");
}

/* A full disk is told as such. */
static void test_full_disk(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *path = pf_asprintf("%s/dest", dir_path);

	(void)state;
	python("add('f', b'x' * 1000000)\n");
	assert_int_equal(mount("pf-test", path, "tmpfs", 0, "size=64k"), 0);
	int tiny = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), saved = dest;
	dest = tiny;
	int r = unpack_file("a.tar", NULL, NULL, &err);
	dest = saved;
	close(tiny);
	umount2(path, MNT_DETACH);
	assert_int_equal(r, -1);
	assert_int_equal(err.kind, PF_ERR_SYSTEM);
	assert_int_equal(err.errnum, ENOSPC);
}

/* ---- packing ---- */

static int to_file(void *arg, const void *data, size_t len, struct pf_err *err)
{
	return pf_write_all(*(int *)arg, data, len) < 0 ? pf_fail(err, errno, "write") : 0;
}

static void pack_dest(const char *name)
{
	struct pf_pack_opts opts = {.layer = true};
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *path = pf_asprintf("%s/%s", dir_path, name);
	PF_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (pf_pack_tree(dest, &opts, to_file, &fd, NULL, &err) < 0)
		fail_msg("%s", err.msg);
}

/* What was packed unpacks to the same, byte for byte when packed again; GNU tar and Python agree that it is a
 * tar. */
static void test_pack_round_trip(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_unpack_stats one, two;

	(void)state;
	python("add('./', **{**DIR, 'mode': 0o750})\n"
	       "add('d/', **{**DIR, 'mtime': 5.5})\nadd('d/.wh.gone', b'')\nadd('o/.wh..wh..opq', b'')\n"
	       "add('f', b'x' * 1000, mode=0o6755, pax_headers={'mtime': '-1.25', 'SCHILY.xattr.user.k': "
	       "'v=1\\n'})\n"
	       "add('h', type=LNK, linkname='f')\nadd('s', type=SYM, linkname='t' * 300)\n"
	       "add('n' * 150 + '/' + 'm' * 200, b'')\nadd('p', type=tarfile.FIFOTYPE)\n"
	       "f = open('big', 'wb'); f.seek(100 << 20); f.write(b'end'); f.close()\n");
	unpack(NULL, NULL);
	PF_FREE char *cmd =
		pf_asprintf("cd %s && cp --sparse=always big dest/big && touch -d @7 dest/big", dir_path);
	char *cp[] = {"/bin/sh", "-c", cmd, NULL};
	assert_int_equal(pf_run(cp, NULL, &err), 0);
	pack_dest("b.tar");
	PF_FREE char *path = pf_asprintf("%s/dest", dir_path);
	close(dest);
	assert_int_equal(pf_rm_rf_at(AT_FDCWD, path, &err), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	dest = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (unpack_file("b.tar", &strict, &one, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(one.archive_bytes < 1 << 20);
	assert_true(whiteout("d/gone"));
	assert_true(opaque("o"));
	assert_int_equal(st_of("f").st_mtim.tv_sec, -2);
	assert_int_equal(st_of("f").st_mtim.tv_nsec, 750000000);
	assert_int_equal(st_of(".").st_mode & 07777, 0750);
	assert_int_equal(st_of("big").st_size, (100 << 20) + 3);
	pack_dest("c.tar");
	if (unpack_file("c.tar", NULL, &two, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(one.diff_id, two.diff_id);
	python("n = tarfile.open('c.tar').getnames()\nassert 'd/.wh.gone' in n and 'o/.wh..wh..opq' in n, n\n"
	       "assert os.system('mkdir x && tar xf c.tar -C x && cmp big x/big') == 0\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names_are_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_whiteouts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_compressions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gnu_sparse, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deeper_than_path_max, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xattrs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_duplicates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_devices, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absolute, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_implied_directories, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_digests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pack_round_trip, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
