/* The finished pinfold-init, carried inside the programs that start sandboxes. */
	.section .rodata
	.balign 16
	.globl pf_init_blob
pf_init_blob:
	.incbin PF_INIT_FILE
	.globl pf_init_blob_end
pf_init_blob_end:
	.section .note.GNU-stack,"",%progbits
