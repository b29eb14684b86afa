"""Small disassemblies for the tests, written by hand in the form that llvm-objdump prints."""

# for i in 0..3: for j in 0..8 (by 8 floats): out[j] = a[j] * x + b[j]
NESTED = """
kernel.o:	file format elf64-x86-64

Disassembly of section .ltext:

0000000000000000 <scale>:
       0: 55                           	pushq	%rbp
       1: 48 89 e5                     	movq	%rsp, %rbp
       4: 31 f6                        	xorl	%esi, %esi
       6: 0f 1f 00                     	nopl	(%rax)
      10: 31 ff                        	xorl	%edi, %edi
      12: 66 90                        	nop
      20: c5 fc 10 04 b8               	vmovups	(%rax,%rdi,4), %ymm0
      25: c4 e2 75 a8 04 b9            	vfmadd213ps	(%rcx,%rdi,4), %ymm1, %ymm0 # ymm0 = (ymm1 * ymm0) + mem
      2b: c5 fc 11 04 ba               	vmovups	%ymm0, (%rdx,%rdi,4)
      30: 48 83 c7 08                  	addq	$0x8, %rdi
      34: 48 83 ff 40                  	cmpq	$0x40, %rdi
      38: 75 e6                        	jne	0x20 <scale+0x20>
      3a: 48 ff c6                     	incq	%rsi
      3d: 48 83 fe 03                  	cmpq	$0x3, %rsi
      41: 75 cd                        	jne	0x10 <scale+0x10>
      43: 31 c0                        	xorl	%eax, %eax
      45: 5d                           	popq	%rbp
      46: c3                           	retq
"""

# Cut in 4 parts; the turns of its loop depend on an argument.
PARTS = """
0000000000000000 <add_part>:
       0:      	movq	0x8(%rdi), %rax
       4:      	movq	(%rax), %rax
       8:      	cmpq	$0x3, %rax
       c:      	ja	0x40 <add_part+0x40>
      10:      	movq	0x18(%rdi), %rdx
      14:      	movq	(%rdx), %rcx
      18:      	xorl	%esi, %esi
      20:      	vmovups	(%rdx,%rsi), %ymm0
      28:      	vaddps	(%rax,%rsi), %ymm0, %ymm0
      30:      	vmovups	%ymm0, (%rdx,%rsi)
      34:      	addq	$0x20, %rsi
      38:      	cmpq	%rcx, %rsi
      3c:      	jb	0x20 <add_part+0x20>
      40:      	retq
"""


def counted(start: int, step: int, limit: int, jump: str) -> str:
    """A function with one loop, whose counter goes from `start` by `step` and jumps back while `jump` says so."""
    return f"""
0000000000000000 <counted>:
       0:      	movq	${start:#x}, %rbx
      10:      	vaddss	(%rax), %xmm0, %xmm0
      14:      	addq	${step:#x}, %rbx
      18:      	cmpq	${limit:#x}, %rbx
      1c:      	{jump}	0x10 <counted+0x10>
      20:      	retq
"""


def chained(edges: dict[int, tuple[int | None, bool]]) -> str:
    """A function of one-jump blocks: block k jumps to edges[k][0], and also falls through where edges[k][1]."""
    lines = ["0000000000000000 <graph>:"]
    for block, (target, falls) in edges.items():
        jump = "retq" if target is None else f"{'jne' if falls else 'jmp'}\t{target * 16:#x} <graph+{target * 16:#x}>"
        lines += [f"    {block * 16:x}:      \tincq\t%rax", f"    {block * 16 + 8:x}:      \t{jump}"]
    return "\n".join(lines) + "\n"
