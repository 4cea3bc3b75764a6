/* Loaded before the C library (LD_PRELOAD): counts the writes, syncs, renames, truncations and removals of files below
 * one folder, and has one of them go wrong. The process is killed before, amid or after it, or the disk is full from
 * it on.
 *
 * FAULT_FOLDER: absolute path. FAULT_LOG: takes one letter for each operation. FAULT_AT: which one, from 1.
 * FAULT_HOW: before, torn, after or full.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, BEFORE, TORN, AFTER, FULL };
static atomic_int count;

static void end(void) { syscall(SYS_kill, getpid(), SIGKILL); }

static int step(const char *path, char kind) {
    const char *folder = getenv("FAULT_FOLDER"), *log = getenv("FAULT_LOG"), *at = getenv("FAULT_AT");
    if (!folder || !path || strncmp(path, folder, strlen(folder))) return NOTHING;
    int number = atomic_fetch_add(&count, 1) + 1, how = NOTHING;
    if (log) {
        int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0600);
        syscall(SYS_write, file, &kind, 1);
        syscall(SYS_close, file);
    }
    const char *name = getenv("FAULT_HOW");
    if (!at || !name) return NOTHING;
    if (!strcmp(name, "full")) return number >= atoi(at) && kind == 'w' ? FULL : NOTHING;
    if (number != atoi(at)) return NOTHING;
    how = !strcmp(name, "torn") ? TORN : !strcmp(name, "after") ? AFTER : BEFORE;
    if (how == BEFORE || (how == TORN && kind != 'w')) end();
    return how;
}

static int step_file(int file, char kind) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return NOTHING;
    path[length] = 0;
    return step(path, kind);
}

#define DONE(how, call) ({ long result = (call); if (how == AFTER) end(); result; })
#define REFUSED(how) if (how == FULL) { errno = ENOSPC; return -1; }

ssize_t write(int file, const void *bytes, size_t size) {
    int how = step_file(file, 'w');
    REFUSED(how)
    if (how == TORN) { syscall(SYS_write, file, bytes, size / 2); end(); }
    return DONE(how, syscall(SYS_write, file, bytes, size));
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) {
    int how = step_file(file, 'w');
    REFUSED(how)
    if (how == TORN) { syscall(SYS_pwrite64, file, bytes, size / 2, at); end(); }
    return DONE(how, syscall(SYS_pwrite64, file, bytes, size, at));
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) { return pwrite64(file, bytes, size, at); }

ssize_t writev(int file, const struct iovec *parts, int number) {
    int how = step_file(file, 'w');
    REFUSED(how)
    if (how == TORN) { syscall(SYS_writev, file, parts, number / 2); end(); }
    return DONE(how, syscall(SYS_writev, file, parts, number));
}

int fsync(int file) { int how = step_file(file, 's'); return DONE(how, syscall(SYS_fsync, file)); }

int fdatasync(int file) { int how = step_file(file, 's'); return DONE(how, syscall(SYS_fdatasync, file)); }

int ftruncate64(int file, off64_t size) {
    int how = step_file(file, 't');
    return DONE(how, syscall(SYS_ftruncate, file, size));
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    int how = step(to, 'r');
    return DONE(how, syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return renameat2(from_folder, from, to_folder, to, 0);
}

int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlink(const char *path) {
    int how = step(path, 'u');
    return DONE(how, syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}
