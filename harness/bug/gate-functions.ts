/** What sends a page by reference over TCP: up to 6.4, and since 6.5. The senders of the family all come through it. */
export const BY_REFERENCE = ['tcp_sendpage', 'skb_splice_from_iter'] as const;
