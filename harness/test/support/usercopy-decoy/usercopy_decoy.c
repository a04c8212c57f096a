// SPDX-License-Identifier: GPL-2.0
/*
 * A usercopy panic that is not the sought one: reading its proc file copies two neighbouring objects' worth of bytes out of one object of
 * a cache of its own, from whatever process reads it.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define OBJECT_SIZE 512

static struct kmem_cache *cache;

static ssize_t decoy_read(struct file *file, char __user *to, size_t count, loff_t *offset)
{
	void *object = kmem_cache_zalloc(cache, GFP_KERNEL);
	unsigned long left = count;

	if (!object)
		return -ENOMEM;
	left = copy_to_user(to, object, count);
	kmem_cache_free(cache, object);
	return left ? -EFAULT : count;
}

static const struct proc_ops decoy_ops = { .proc_read = decoy_read };

static int __init decoy_init(void)
{
	/* A usercopy window of its own keeps SLUB from merging it with another cache. */
	cache = kmem_cache_create_usercopy("decoy-512", OBJECT_SIZE, 0, SLAB_PANIC, 0, 64, NULL);
	return proc_create("usercopy_decoy", 0400, NULL, &decoy_ops) ? 0 : -ENOMEM;
}
module_init(decoy_init);

MODULE_DESCRIPTION("usercopy panic with another cache and another reader");
MODULE_LICENSE("GPL");
