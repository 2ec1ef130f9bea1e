# GNU make. Everything is built below $(BUILD); the programs are in $(BUILD)/bin and $(BUILD)/libexec/pinfold.
#
#   make            build                       make check    all tests, one summary line
#   make demo       one session, start to end   make bench    against runc, crun, bwrap
#   make fuzz       the parsers of hostile input
#   make asan       the tests under ASan+UBSan  make lint     clang-tidy, cppcheck, clang-format
#   make install    DESTDIR= PREFIX=/usr/local  make uninstall    likewise
#   make format     lay the code out
#   make dist       the release tarball         make test-dist   it works on other releases of Debian
#   make test-jail-long   minutes of jails: Pinfold built in one, 500 at once
#   make compare-jail   hostile programs under pinfold-jail, bwrap, firejail, srt
#   make test-connections  ten thousand at once through one gate
#   make test-vm    on Debian's kernel with cgroup v2 alone, in QEMU; test-vm-systemd: and with systemd
#   make test-vm-arm64   the same for aarch64: cross-compiled, in a machine of that kind
#   make soak-checkpoint  generations through a registry, then everything at once and killed (SOAK_SECONDS=300)
#   make soak-worker   sessions while the worker's processes are killed at random (SOAK_SECONDS=300)
#   make test-images   the image for agents, whole, with what its package managers fetch
#
# CC=clang works too. V=1 shows the commands. ARCH=arm64 is for aarch64: all, dist and test-programs then cross-compile
# into build/arm64, against libraries that scripts/sysroot unpacks.

VERSION := 0.1.0
BUILD   ?= build
PREFIX  ?= /usr/local
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)

# Another kind of machine than this one.
SYSROOT :=
# Said to make, not found in the environment, where it means something else to others.
ifeq ($(origin ARCH),environment)
ARCH :=
endif
ifneq ($(ARCH),)
ifneq ($(ARCH),$(shell dpkg --print-architecture))
ifneq ($(ARCH),arm64)
$(error ARCH=$(ARCH): another kind of machine than this one can be arm64 only)
endif
SYSROOT := $(shell scripts/sysroot $(ARCH))
$(if $(SYSROOT),,$(error ARCH=$(ARCH): there are no libraries to build against))
CC      := aarch64-linux-gnu-gcc --sysroot=$(SYSROOT)
override BUILD := $(BUILD:%/$(ARCH)=%)/$(ARCH)
endif
endif

OPT      ?= -O2 -g
HARDEN   ?= -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -ftrapv
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
CPPFLAGS += -D_GNU_SOURCE -DPF_VERSION='"$(VERSION)"' -I.
CFLAGS   += -std=gnu17 $(OPT) $(HARDEN) $(WARN) $(SAN) -ffunction-sections -fdata-sections -MMD -MP
LDFLAGS  += -pie -Wl,--gc-sections,--as-needed,-z,relro,-z,now $(SAN)

# Debian ships no archive for these two; the others are linked in, because loading a shared object costs more
# than what we use it for (docs/architecture.md, start-up).
DYN_SMALL   := -lcjson -lmnl
STATIC_CORE := -l:libseccomp.a -l:libcap.a -l:libcares.a -l:libhttp_parser.a
CORE_LIBS   := $(STATIC_CORE) $(DYN_SMALL)
# The archive alone of libarchive: of tar it needs next to nothing, while the shared one brings in XML, Unicode and
# a dozen libraries more, which take twice as long to load as all the rest.
STORE_LIBS  := -l:libarchive.a -l:libz.a -l:liblzma.a -lcrypto -lzstd $(CORE_LIBS)

.DEFAULT_GOAL := all

LAYERS := base sandbox overlay netpolicy checkpoint session jail worker
define layer_rule
$(1)_SRC := $$(wildcard $(1)/*.c)
$(1)_OBJ := $$($(1)_SRC:%.c=$(BUILD)/obj/%.o)
$(BUILD)/lib$(1).a: $$($(1)_OBJ)
	$$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rule,$(l))))
LIBS := $(foreach l,jail session checkpoint netpolicy overlay sandbox base,$(BUILD)/lib$(l).a)

PINFOLD_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold/*.c)) $(BUILD)/obj/cmd/init-blob.o
JAIL_OBJ    := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold-jail/*.c)) $(BUILD)/obj/cmd/init-blob.o
TLS_OBJ     := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold-tls/*.c))
REGISTRY_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold-registry/*.c))
BWRAP_OBJ   := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold-bwrap/*.c)) $(BUILD)/obj/cmd/init-blob.o
WORKER_OBJ  := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold-worker/*.c))
TOOL_SRC    := $(wildcard cmd/pinfold-tool/*.c)
SYSTEMD_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold-systemd/*.c))
STORE_OBJ   := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cmd/pinfold-store/*.c))
UNIT_SRC    := $(wildcard tests/unit/test_*.c)
UNIT_BIN    := $(UNIT_SRC:%.c=$(BUILD)/%)
HELPER_SRC  := $(filter-out tests/helpers/faultinject.c,$(wildcard tests/helpers/*.c))
HELPER_BIN  := $(HELPER_SRC:%.c=$(BUILD)/%) $(BUILD)/tests/helpers/faultinject.so

PROGRAMS := $(BUILD)/bin/pinfold $(BUILD)/bin/pinfold-jail $(BUILD)/bin/pinfold-bwrap $(BUILD)/libexec/pinfold/pinfold-store $(BUILD)/libexec/pinfold/pinfold-systemd \
	$(BUILD)/libexec/pinfold/pinfold-tls $(BUILD)/libexec/pinfold/pinfold-worker $(BUILD)/libexec/pinfold/pinfold-tool \
	$(if $(REGISTRY_OBJ),$(BUILD)/libexec/pinfold/pinfold-registry)

LIBRARY := $(BUILD)/lib/libpinfold.a $(BUILD)/lib/libpinfold.so.0

.PHONY: all install demo check check-unit bench asan format lint clean deps
all: $(PROGRAMS) $(LIBRARY)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# PID 1 of a sandbox: no libc, no libraries, a few KiB; carried inside pinfold and run from a sealed memfd.
INIT_CFLAGS := -std=gnu17 -Os $(WARN) -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none \
	-static -nostdlib -fno-pie -no-pie -Wl,-z,noexecstack,-z,norelro,--build-id=none,-n -s
$(BUILD)/obj/cmd/pinfold-init: cmd/pinfold-init/init.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(INIT_CFLAGS) -I. -o $@ $<
$(BUILD)/obj/cmd/init-blob.o: cmd/pinfold-init/blob.S $(BUILD)/obj/cmd/pinfold-init
	$(Q)$(CC) -DPF_INIT_FILE='"$(BUILD)/obj/cmd/pinfold-init"' -c -o $@ $<

$(BUILD)/bin/pinfold: $(PINFOLD_OBJ) $(LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(PINFOLD_OBJ) -Wl,--start-group $(LIBS) -Wl,--end-group $(CORE_LIBS)
$(BUILD)/bin/pinfold-bwrap: $(BWRAP_OBJ) $(LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(BWRAP_OBJ) -Wl,--start-group $(LIBS) -Wl,--end-group $(CORE_LIBS)
$(BUILD)/bin/pinfold-jail: $(JAIL_OBJ) $(LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(JAIL_OBJ) -Wl,--start-group $(LIBS) -Wl,--end-group $(CORE_LIBS)
$(BUILD)/libexec/pinfold/pinfold-store: $(STORE_OBJ) $(BUILD)/obj/cmd/init-blob.o $(LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(STORE_OBJ) $(BUILD)/obj/cmd/init-blob.o \
		-Wl,--start-group $(LIBS) -Wl,--end-group $(STORE_LIBS)

$(BUILD)/libexec/pinfold/pinfold-tls: $(TLS_OBJ) $(LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(TLS_OBJ) -Wl,--start-group $(LIBS) -Wl,--end-group -lssl -lcrypto $(CORE_LIBS)

$(BUILD)/libexec/pinfold/pinfold-systemd: $(SYSTEMD_OBJ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(SYSTEMD_OBJ) -lsystemd

$(BUILD)/libexec/pinfold/pinfold-registry: $(REGISTRY_OBJ) $(LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(REGISTRY_OBJ) -Wl,--start-group $(LIBS) -Wl,--end-group -lcurl -lcrypto $(CORE_LIBS)

# The environment worker speaks through libcurl too, and answers through libmicrohttpd.
WORKER_LIBS := -l:libhttp_parser.a -lcurl -lmicrohttpd -lcrypto -lcjson -lpthread
$(BUILD)/libexec/pinfold/pinfold-worker: $(WORKER_OBJ) $(BUILD)/libworker.a $(LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(WORKER_OBJ) $(BUILD)/libworker.a -Wl,--start-group $(LIBS) -Wl,--end-group $(WORKER_LIBS) $(CORE_LIBS)
	@mkdir -p $(BUILD)/bin
	$(Q)for n in worker on-work; do ln -sf ../libexec/pinfold/pinfold-worker $(BUILD)/bin/pinfold-$$n; done
# Its hand inside of sandboxes: static, because it runs in every image.
$(BUILD)/libexec/pinfold/pinfold-tool: $(TOOL_SRC) cmd/pinfold-tool/tool.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu17 $(OPT) $(WARN) -D_FORTIFY_SOURCE=2 -fstack-protector-strong -static -s -o $@ $(TOOL_SRC)

# For programs of other people: one file, position-independent, with nothing of the tree in it but itself.
$(BUILD)/obj/lib/pinfold.o: lib/pinfold.c lib/pinfold.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(filter-out -fPIE,$(CFLAGS)) -fPIC -fvisibility=hidden \
		-DPF_JAIL_PROGRAM='"$(PREFIX)/bin/pinfold-jail"' -c -o $@ $<
$(BUILD)/lib/libpinfold.a: $(BUILD)/obj/lib/pinfold.o
	@mkdir -p $(@D)
	$(Q)rm -f $@ && ar rcs $@ $<
$(BUILD)/lib/libpinfold.so.0: $(BUILD)/obj/lib/pinfold.o
	@mkdir -p $(@D)
	$(Q)$(CC) $(SAN) -shared -Wl,-soname,libpinfold.so.0,-z,relro,-z,now,-z,defs -o $@ $< -lcjson
	$(Q)ln -sf libpinfold.so.0 $(BUILD)/lib/libpinfold.so

$(BUILD)/tests/unit/%: tests/unit/%.c $(LIBS) $(BUILD)/libworker.a $(BUILD)/lib/libpinfold.a $(BUILD)/obj/cmd/init-blob.o
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/obj/cmd/init-blob.o \
		-Wl,--start-group $(LIBS) $(BUILD)/libworker.a -Wl,--end-group $(BUILD)/lib/libpinfold.a -lcmocka $(STORE_LIBS) \
		$(WORKER_LIBS)
$(BUILD)/tests/helpers/%: tests/helpers/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -O1 $(WARN) -static -o $@ $<

# The hostile programs of tests/jail/compare.bats and compare-jail: one program, for any sandbox's insides.
HOSTILE_SRC := $(wildcard tests/jail/hostile/*.c)
$(BUILD)/tests/hostile: $(HOSTILE_SRC) tests/jail/hostile/hostile.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu17 -O1 $(WARN) -static -s -o $@ $(HOSTILE_SRC)

# This one is preloaded.
$(BUILD)/tests/helpers/%.so: tests/helpers/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -O1 $(WARN) -fPIC -shared -o $@ $<

deps:
	$(Q)scripts/install-deps build

demo:
	$(Q)scripts/install-deps demo
	@echo "building (a minute or two, once)"
	$(Q)$(MAKE) --no-print-directory -j2 all
	$(Q)scripts/demo $(if $(IMAGE),--image $(IMAGE))

check:
	$(Q)scripts/install-deps test
	$(Q)$(MAKE) --no-print-directory -j2 all test-programs
	$(Q)BUILD=$(BUILD) tests/run $(TESTS)

.PHONY: test-programs
test-programs: $(UNIT_BIN) $(HELPER_BIN) $(BUILD)/tests/hostile

# The readers of what a sandbox sends, each for FUZZ_SECONDS.
FUZZ_SECONDS ?= 20
.PHONY: fuzz
fuzz:
	$(Q)scripts/install-deps lint
	$(Q)BUILD=$(BUILD) tests/fuzz/run $(FUZZ_SECONDS)

# Minutes of jails: Pinfold built in one, five hundred at once.
.PHONY: test-jail-long
test-jail-long:
	$(Q)scripts/install-deps test
	$(Q)$(MAKE) --no-print-directory -j2 all test-programs
	$(Q)BUILD=$(BUILD) JAIL_SOAK=500 tests/run jail-long jail/limits

asan:
	$(Q)scripts/install-deps test
	$(Q)$(MAKE) --no-print-directory check BUILD=build/asan OPT='-O1 -g' HARDEN=-fPIE \
		SAN='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer'

bench:
	$(Q)scripts/install-deps bench
	$(Q)$(MAKE) --no-print-directory -j2 all
	$(Q)BUILD=$(BUILD) scripts/bench

# The same hostile programs under pinfold-jail, bwrap, firejail and srt.
.PHONY: compare-jail
compare-jail:
	$(Q)scripts/install-deps compare
	$(Q)$(MAKE) --no-print-directory -j2 all $(BUILD)/tests/hostile
	$(Q)BUILD=$(BUILD) scripts/compare-jail $(COMPARE)

# As many connections through one gate at once as the machine has descriptors for, up to ten thousand.
.PHONY: test-connections
test-connections:
	$(Q)scripts/install-deps test
	$(Q)$(MAKE) --no-print-directory -j2 all test-programs
	$(Q)BUILD=$(BUILD) PF_CONNECTIONS=1 tests/run egress/real

# What the egress gate costs, against the same without it.
.PHONY: bench-gate
bench-gate:
	$(Q)scripts/install-deps test
	$(Q)$(MAKE) --no-print-directory -j2 all
	$(Q)BUILD=$(BUILD) scripts/bench-gate

# Checkpoint after checkpoint of trees that change and of programs at work, through a registry; then snapshots, restores, forks,
# prune and gc at once for SOAK_SECONDS, killed at random. Half an hour and more.
.PHONY: soak-checkpoint
soak-checkpoint:
	$(Q)scripts/install-deps soak
	$(Q)$(MAKE) --no-print-directory -j2 all test-programs
	$(Q)PF_GENERATIONS=200 PF_EDITS=2000 SOAK_SECONDS=$(SOAK_SECONDS) BUILD=$(BUILD) tests/run system/checkpoint_generations soak

# What is found under the names of the worker's and the completion's programs, and the manual pages of all.
WORKER_NAMES := worker on-work
COMPLETED    := pinfold-jail pinfold-worker pinfold-on-work
MANUALS      := $(notdir $(wildcard docs/man/*.1))
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/pinfold $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/pinfold $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	for p in $(PROGRAMS:$(BUILD)/%=%); do install -m 755 $(BUILD)/$$p $(DESTDIR)$(PREFIX)/$$p || exit 1; done
	for n in $(WORKER_NAMES); do ln -sf ../libexec/pinfold/pinfold-worker $(DESTDIR)$(PREFIX)/bin/pinfold-$$n; done
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	cp -r images jail/profiles deploy examples $(DESTDIR)$(PREFIX)/share/pinfold/
	cp -r deploy/apparmor $(DESTDIR)$(PREFIX)/share/pinfold/
	# What a node's installer brings is in /opt; what is copied from here names this place.
	$(if $(PREFIX),cd $(DESTDIR)$(PREFIX)/share/pinfold/deploy && sed -i 's|/opt/pinfold|$(PREFIX)|' containerd/* crio/* podman/* systemd/*)
	install -d $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include
	install -m 644 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/
	ln -sf libpinfold.so.0 $(DESTDIR)$(PREFIX)/lib/libpinfold.so
	install -m 644 lib/pinfold.h $(DESTDIR)$(PREFIX)/include/pinfold.h
	install -m 644 scripts/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pinfold
	for n in $(COMPLETED); do ln -sf pinfold $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$n; done

# Removes what install has put there, and nothing that sandboxes have made.
.PHONY: uninstall
uninstall:
	rm -f $(PROGRAMS:$(BUILD)/%=$(DESTDIR)$(PREFIX)/%) $(WORKER_NAMES:%=$(DESTDIR)$(PREFIX)/bin/pinfold-%) \
		$(MANUALS:%=$(DESTDIR)$(PREFIX)/share/man/man1/%) $(LIBRARY:$(BUILD)/%=$(DESTDIR)$(PREFIX)/%) \
		$(DESTDIR)$(PREFIX)/lib/libpinfold.so $(DESTDIR)$(PREFIX)/include/pinfold.h \
		$(patsubst %,$(DESTDIR)$(PREFIX)/share/bash-completion/completions/%,pinfold $(COMPLETED))
	rm -rf $(DESTDIR)$(PREFIX)/share/pinfold
	-rmdir $(DESTDIR)$(PREFIX)/libexec/pinfold

SOURCES := $(shell git ls-files '*.c' '*.h' 2>/dev/null)
format:
	$(Q)clang-format -i $(SOURCES)
lint:
	$(Q)scripts/install-deps lint
	$(Q)BUILD=$(BUILD) scripts/lint

# The tarball for machines whose libraries we do not choose, and the proof that it runs there.
.PHONY: dist test-dist test-vm test-vm-systemd test-vm-arm64
dist: all
	$(Q)scripts/install-deps dist
	$(Q)BUILD=$(BUILD) SYSROOT=$(SYSROOT) scripts/dist $(VERSION)
test-dist: dist
	$(Q)scripts/install-deps test
	$(Q)BUILD=$(BUILD) DIST=$(BUILD)/dist tests/run dist deploy

# The worker's processes killed at random while sessions run; the default tests have twenty seconds of it.
SOAK_SECONDS ?= 300
.PHONY: soak-worker
soak-worker: all
	$(Q)scripts/install-deps test
	$(Q)timeout $$(($(SOAK_SECONDS) + 400)) python3 tests/worker/soak.py --build $(BUILD) --seconds $(SOAK_SECONDS) --sessions 8 --workers 3

# The image for agents, whole: minutes, and some hundred MB from the machine's package sources.
.PHONY: test-images
test-images: all
	$(Q)scripts/install-deps test
	$(Q)BUILD=$(BUILD) tests/run images

test-vm: all
	$(Q)scripts/install-deps vm$(if $(SYSROOT),-$(ARCH))
	$(Q)$(MAKE) --no-print-directory -j2 test-programs
	$(Q)BUILD=$(BUILD) scripts/test-vm $(if $(SYSROOT),--arch $(ARCH)) $(TESTS)
# The same under systemd: what Pinfold does beside it, of a user's own, and as its service.
test-vm-systemd: all
	$(Q)scripts/install-deps vm
	$(Q)$(MAKE) --no-print-directory -j2 test-programs
	$(Q)BUILD=$(BUILD) scripts/test-vm --systemd $(TESTS)
# The same on aarch64.
test-vm-arm64:
	$(Q)$(MAKE) --no-print-directory -j2 ARCH=arm64 all test-programs
	$(Q)$(MAKE) --no-print-directory ARCH=arm64 test-vm

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
