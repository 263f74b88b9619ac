# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest that proves its own memory, in one boot sector.
#
# It owns [START, END).  Even pages are live: each carries the number of the round in which it was
# last written, twice (head and tail), and a sum.  A round visits every live page once, in an order
# scattered by STRIDE, and before it writes a page it checks that the page is exactly what the
# last round left.  A page that is lost, stale, torn or misplaced is therefore found by the guest
# itself, at the latest one round later.  Odd pages hold a pattern made of their own address and are
# looked at in passing; one page in 32 is zero.
#
# live page:  +0 round  +4 address  +8 visits  +12 sum   … pattern …   +4080 the same four words
# pattern:    pairs of (page address, ~page address)
# sum:        rotate_left(round, 7) ^ visits ^ address ^ SALT
# visits is counted up in place, so a write that was lost or done twice shows
#
# The status words at STATUS are read from outside; guestmem.py knows the same layout.
#
# Assembled with IO defined, it is the boot sector of the guest that reads a disk, too: disk.c lies in the
# IO_SECTORS behind it, is loaded to IO_ENTRY, and is called after each page.

	.set	PAGE, 4096
	.set	SALT, 0x5a5aa5a5
	.set	TAIL, PAGE - 16
	.set	LIVE, (END - START) / (2 * PAGE)
	.set	STEP, STRIDE % LIVE

	.set	IO_ENTRY, 0x9000
	.set	IO_SECTORS, 16

	.set	STATUS, 0x8000			# %ebp holds it; the words are offsets
	.set	ST_MAGIC, 0			# "PCG1" when the first round begins
	.set	ST_ROUND, 4
	.set	ST_DONE, 8			# live pages finished in this round
	.set	ST_BEAT, 12			# live pages finished since boot, modulo 2^32
	.set	ST_ERRORS, 16
	.set	ST_BAD_PAGE, 20		# of the first error
	.set	ST_BAD_CODE, 24
	.set	ST_START, 28
	.set	ST_LIVE, 32
	.set	ST_STEP, 36
	.set	ST_CURSOR, 40			# live page under work

	.section .text
	.globl	_start
	.code16
_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	.ifdef	IO
	movw	%ax, %es
	movw	$0x7c00, %sp
	movw	%ax, %ss
	movw	$0x0200 + IO_SECTORS, %ax	# from the second sector of the disk we came from, %dl
	movw	$2, %cx
	movb	$0, %dh
	movw	$IO_ENTRY, %bx
	int	$0x13
	.endif
	inb	$0x92, %al			# A20
	orb	$2, %al
	andb	$0xfe, %al
	outb	%al, $0x92
	lgdtl	gdt_pointer
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $protected

	.code32
protected:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$0x7c00, %esp

	movl	$STATUS, %ebp			# stays there for ever
	movl	%ebp, %edi
	movl	$16, %ecx
	xorl	%eax, %eax
	cld
	rep stosl
	movl	$START, ST_START(%ebp)
	movl	$LIVE, ST_LIVE(%ebp)
	movl	$STEP, ST_STEP(%ebp)

	movl	$START, %esi
fill:						# %esi: the page to fill
	movl	%esi, %edi
	movl	%esi, %ebx
	movl	%esi, %edx
	notl	%edx
	movl	%esi, %eax
	andl	$0x1f000, %eax
	cmpl	$0x1f000, %eax			# the page that is zero; the BIOS may have used it
	jne	1f
	xorl	%ebx, %ebx
	xorl	%edx, %edx
1:	movl	$PAGE / 8, %ecx
2:	movl	%ebx, (%edi)
	movl	%edx, 4(%edi)
	addl	$8, %edi
	decl	%ecx
	jnz	2b
	testl	$PAGE, %esi
	jnz	filled
	movl	$-1, 8(%esi)
	xorl	%eax, %eax
	call	stamp
filled:
	addl	$PAGE, %esi
	cmpl	$END, %esi
	jb	fill
	movl	$0x31474350, ST_MAGIC(%ebp)

next_round:
	incl	ST_ROUND(%ebp)
	movl	$0, ST_DONE(%ebp)
	xorl	%ebx, %ebx			# %ebx: which live page
next_page:
	movl	%ebx, %esi
	shll	$13, %esi
	addl	$START, %esi
	movl	%esi, ST_CURSOR(%ebp)
	call	check
	movl	ST_ROUND(%ebp), %eax
	call	stamp
	incl	ST_BEAT(%ebp)
	.ifdef	IO
	call	IO_ENTRY
	.endif
	addl	$STEP, %ebx
	cmpl	$LIVE, %ebx
	jb	1f
	subl	$LIVE, %ebx
1:	incl	ST_DONE(%ebp)
	cmpl	$LIVE, ST_DONE(%ebp)
	jb	next_page
	jmp	next_round

# Visit the live page %esi in round %eax.
stamp:
	incl	8(%esi)
	movl	8(%esi), %ecx
	call	sum
	movl	%eax, (%esi)
	movl	%esi, 4(%esi)
	movl	%edx, 12(%esi)
	movl	%eax, TAIL(%esi)
	movl	%esi, TAIL + 4(%esi)
	movl	%ecx, TAIL + 8(%esi)
	movl	%edx, TAIL + 12(%esi)
	ret

# %edx: the sum of page %esi, round %eax, visits %ecx.
sum:
	movl	%eax, %edx
	roll	$7, %edx
	xorl	%ecx, %edx
	xorl	%esi, %edx
	xorl	$SALT, %edx
	ret

# Is the live page %esi what the round before left, and are its neighbours as they were made?
check:
	movl	ST_ROUND(%ebp), %eax
	decl	%eax
	movl	$1, %ecx
	cmpl	%esi, 4(%esi)
	jne	bad
	incl	%ecx				# 2: stale or lost write
	cmpl	%eax, (%esi)
	jne	bad
	incl	%ecx				# 3: visited more or less than once a round
	cmpl	%eax, 8(%esi)
	jne	bad
	incl	%ecx				# 4: torn head
	pushl	%ecx
	movl	%eax, %ecx
	call	sum
	popl	%ecx
	cmpl	%edx, 12(%esi)
	jne	bad
	incl	%ecx				# 5: torn page
	cmpl	%eax, TAIL(%esi)
	jne	bad
	cmpl	%eax, TAIL + 8(%esi)
	jne	bad
	cmpl	%edx, TAIL + 12(%esi)
	jne	bad
	incl	%ecx				# 6: pattern of the live page
	cmpl	%esi, PAGE / 2(%esi)
	jne	bad
	incl	%ecx				# 7: the odd page behind it
	leal	PAGE(%esi), %edx
	movl	%edx, %eax
	andl	$0x1f000, %eax
	cmpl	$0x1f000, %eax
	jne	1f
	xorl	%edx, %edx
1:	cmpl	%edx, PAGE + PAGE / 2(%esi)
	jne	bad
	ret
bad:
	incl	ST_ERRORS(%ebp)
	cmpl	$1, ST_ERRORS(%ebp)
	jne	1f
	movl	%esi, ST_BAD_PAGE(%ebp)
	movl	%ecx, ST_BAD_CODE(%ebp)
1:	ret

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff		# flat code
	.quad	0x00cf92000000ffff		# flat data
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.org	510
	.word	0xaa55
