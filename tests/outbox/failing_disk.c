/* A disk that fails at the n-th call which changes a file below one folder. Loaded by LD_PRELOAD, armed by `fail_at`.
 *
 * kill   the process dies in place of the call
 * torn   the process dies in the middle of the call: half of what it writes is there
 * power  the power fails: of what was written and not yet synchronised, chance decides what is there
 * full   from that call on there is no room, until `fail_at` is called with 0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KILL, TORN, POWER, FULL };

struct change {
    struct change *before;
    char path[PATH_MAX];
    ino_t inode;
    off_t offset, size;
    size_t length;
    unsigned char old[];
};

static char folder[PATH_MAX];
static long calls, at;
static int how;
static unsigned int chance;
static struct change *unsynchronised;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void fail_at(const char *below, long number, int way) {
    snprintf(folder, sizeof folder, "%s/", below);
    calls = 0;
    at = number;
    how = way;
    chance = (unsigned int)number;
}

long changes_so_far(void) { return calls; }

static int is_ours(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = folder[0] ? readlink(link, path, PATH_MAX - 1) : -1;
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What a change takes away, in case that it is lost. */
static void remember(int fd, const char *path, off_t offset, size_t length) {
    struct stat file;
    if (how != POWER || fstat(fd, &file)) return;
    struct change *change = calloc(1, sizeof *change + length);
    ssize_t kept = pread(fd, change->old, length, offset);
    *change = (struct change){unsynchronised, "", file.st_ino, offset, file.st_size, kept > 0 ? (size_t)kept : 0};
    snprintf(change->path, sizeof change->path, "%s", path);
    unsynchronised = change;
}

static void lose_power(void) {
    for (struct change *each = unsynchronised; each; each = each->before) {
        struct stat file;
        int fd = open(each->path, O_RDWR);
        if (fd >= 0 && !fstat(fd, &file) && file.st_ino == each->inode && rand_r(&chance) % 2) {
            if (REAL(pwrite)(fd, each->old, each->length, each->offset) < 0) abort();
            if (each->size < file.st_size && each->offset + (off_t)each->length >= each->size)
                if (REAL(ftruncate)(fd, each->size)) abort();
        }
        if (fd >= 0) close(fd);
    }
    die();
}

/* Counts a call; true where it has to fail for want of room. */
static int fails(int takes_room) {
    calls++;
    if (!at || calls < at) return 0;
    if (how == FULL) return takes_room;
    if (how == POWER) lose_power();
    if (how == KILL) die();
    return 0;
}

static int is_torn(void) { return how == TORN && calls == at; }

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    char path[PATH_MAX];
    if (is_ours(fd, path)) {
        if (fails(1)) return errno = ENOSPC, -1;
        remember(fd, path, offset, size);
        if (is_torn()) {
            if (REAL(pwrite64)(fd, data, size / 2, offset) < 0) abort();
            die();
        }
    }
    return REAL(pwrite64)(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    if (is_ours(fd, path)) {
        if (fails(1)) return errno = ENOSPC, -1;
        remember(fd, path, lseek(fd, 0, SEEK_CUR), size);
        if (is_torn()) {
            if (REAL(write)(fd, data, size / 2) < 0) abort();
            die();
        }
    }
    return REAL(write)(fd, data, size);
}

int ftruncate64(int fd, off64_t size) {
    char path[PATH_MAX];
    struct stat file;
    if (is_ours(fd, path) && !fstat(fd, &file)) {
        if (fails(size > file.st_size)) return errno = ENOSPC, -1;
        if (is_torn()) die();
        remember(fd, path, size, file.st_size > size ? (size_t)(file.st_size - size) : 0);
    }
    return REAL(ftruncate64)(fd, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static void forget(int fd) {
    struct stat file;
    if (fstat(fd, &file)) return;
    for (struct change **each = &unsynchronised; *each;) {
        struct change *change = *each;
        if (change->inode != file.st_ino) {
            each = &change->before;
            continue;
        }
        *each = change->before;
        free(change);
    }
}

static int synchronise(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (is_ours(fd, path)) {
        fails(0);
        if (is_torn()) die();
        if (!real(fd)) return forget(fd), 0;
        return -1;
    }
    return real(fd);
}

int fsync(int fd) { return synchronise(fd, REAL(fsync)); }

int fdatasync(int fd) { return synchronise(fd, REAL(fdatasync)); }

int unlink(const char *path) {
    if (folder[0] && strncmp(path, folder, strlen(folder)) == 0) {
        fails(0);
        if (is_torn()) die();
    }
    return REAL(unlink)(path);
}
