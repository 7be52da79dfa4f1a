// What module.cc and stream.cc share.
#ifndef IFGO_MODULE_H
#define IFGO_MODULE_H

#include <nanobind/nanobind.h>

#include "ifgo_engine.h"

// The C object inside a Cell or a Dense; two null pointers for anything else.
ifgo_link ifgo_link_of(PyObject *object);
// Features that it reads, or makes.
ptrdiff_t ifgo_size_of(PyObject *object, bool output);

// Units of a Cell.
ptrdiff_t ifgo_hidden_of(PyObject *cell);

// The program inside a Program; null for anything else.
const ifgo_program *ifgo_program_of(PyObject *object);

// Adds Program and Machine to the module.
void ifgo_bind_programs(nanobind::module_ &m);

// A new reference to the type Stream; null with an error set.
PyObject *ifgo_stream_type();

#endif
