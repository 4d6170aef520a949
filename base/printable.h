/* Text from files on its way to people. A string that came from a checkpoint may hold bytes that act on a terminal or
 * turn what stands beside it around: they are replaced wherever a message, a finding or a page is made. What names a
 * thing (tensors, files, a model_type) is refused with such bytes, once, when the checkpoint is opened. */
#ifndef NB_BASE_PRINTABLE_H
#define NB_BASE_PRINTABLE_H

#include <stdbool.h>
#include <stddef.h>

/* The bytes of the character at text[0, n), n > 0, if it shows and does nothing else; minus its bytes if it is a
 * control (C0, DEL, C1), ends a line, or sets the direction of text (Unicode's Bidi_Control); -1 where the text is not
 * UTF-8. */
int nb_printable_character(const char *text, size_t n);

/* True if the text holds only characters that show. */
bool nb_is_printable(const char *text);

#endif
