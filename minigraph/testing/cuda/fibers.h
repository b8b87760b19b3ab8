// Fibers: functions that stop in their middle, so that others run, and go on later. Each has a stack of its own; to
// switch is to save the registers that a call must keep, and to take another stack pointer.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && !defined(MG_UCONTEXT)
#define MG_OWN_SWITCH 1
extern "C" void mg_switch(void*** from, void** to);
asm(R"(
.text
.local mg_switch
.type mg_switch, @function
mg_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size mg_switch, .-mg_switch
)");
#else
#include <ucontext.h>
#endif

namespace mg {

struct Fiber {
#ifdef MG_OWN_SWITCH
  void** top = nullptr;

  void prepare(char* stack, size_t bytes, void (*entry)()) {
    top = (void**)(stack + bytes) - 2;  // what `ret` pops; a function begins 8 bytes below a multiple of 16
    *top = (void*)entry;
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  }
  static void go(Fiber& from, Fiber& to) { mg_switch(&from.top, to.top); }
#else
  ucontext_t context;

  void prepare(char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
  static void go(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }
#endif
};

}  // namespace mg
