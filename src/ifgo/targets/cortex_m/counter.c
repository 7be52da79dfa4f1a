/* A plugin for QEMU: how often each instruction runs inside a window of the program.
 *
 *   -plugin counter.so,out=FILE,begin=ADDRESS,end=ADDRESS
 *
 * A window opens where the instruction at `begin` runs and closes at `end`; neither is counted.
 * FILE gets one line per instruction that ran: its address, how often, and how often it did not go
 * on to the instruction that follows it (a taken branch).
 *
 * The few declarations of QEMU's plugin interface that are needed stand here, because the package
 * of the emulator does not bring its header. PLUGIN_VERSION is the interface's version. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;
typedef void (*translation_callback)(plugin_id id, struct qemu_plugin_tb *block);
typedef void (*execution_callback)(unsigned int cpu, void *data);
typedef void (*exit_callback)(plugin_id id, void *data);

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translation_callback call);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction,
                                                   execution_callback call, int registers,
                                                   void *data);
extern void qemu_plugin_register_atexit_cb(plugin_id id, exit_callback call, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block,
                                                        size_t index);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);

EXPORT int qemu_plugin_version = PLUGIN_VERSION;
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments);

/* One instruction of the program; `next` chains those of one hash value. */
struct place {
    uint64_t address, size, runs, taken;
    struct place *next;
};

#define BUCKETS 65536u

static struct place *buckets[BUCKETS];
static struct place *last;
static uint64_t begin, end;
static bool open_window;
static char out[4096];

static void executed(unsigned int cpu, void *data) {
    struct place *now = data;
    (void)cpu;
    if (now->address == begin || now->address == end) {
        open_window = now->address == begin;
        last = NULL;
        return;
    }
    if (!open_window) {
        return;
    }
    if (last && last->address + last->size != now->address) {
        ++last->taken;
    }
    ++now->runs;
    last = now;
}

static struct place *place_of(uint64_t address, uint64_t size) {
    struct place **bucket = &buckets[address / 2u % BUCKETS], *found;
    for (found = *bucket; found; found = found->next) {
        if (found->address == address) {
            return found;
        }
    }
    found = calloc(1, sizeof *found);
    if (!found) {
        abort();
    }
    found->address = address;
    found->size = size;
    found->next = *bucket;
    *bucket = found;
    return found;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block) {
    const size_t n = qemu_plugin_tb_n_insns(block);
    size_t k;
    (void)id;
    for (k = 0; k < n; ++k) {
        struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(block, k);
        struct place *place = place_of(qemu_plugin_insn_vaddr(one), qemu_plugin_insn_size(one));
        qemu_plugin_register_vcpu_insn_exec_cb(one, executed, 0, place);
    }
}

static void finish(plugin_id id, void *data) {
    FILE *file = fopen(out, "w");
    size_t k;
    (void)id;
    (void)data;
    if (!file) {
        return;
    }
    for (k = 0; k < BUCKETS; ++k) {
        const struct place *place;
        for (place = buckets[k]; place; place = place->next) {
            if (place->runs) {
                fprintf(file, "%08llx %llu %llu\n", (unsigned long long)place->address,
                        (unsigned long long)place->runs, (unsigned long long)place->taken);
            }
        }
    }
    (void)fclose(file);
}

int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
    int k;
    (void)info;
    for (k = 0; k < count; ++k) {
        char *value = strchr(arguments[k], '=');
        if (!value) {
            return -1;
        }
        *value++ = '\0';
        if (strcmp(arguments[k], "begin") == 0) {
            begin = strtoull(value, NULL, 0);
        } else if (strcmp(arguments[k], "end") == 0) {
            end = strtoull(value, NULL, 0);
        } else if (strcmp(arguments[k], "out") == 0 && strlen(value) < sizeof out) {
            strcpy(out, value);
        } else {
            return -1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
