#include "ByteScan.h"

#define ALL (WEIR_CLASS_TOKEN | WEIR_CLASS_TARGET | WEIR_CLASS_HOST)
#define BOTH (WEIR_CLASS_TOKEN | WEIR_CLASS_TARGET)

const uint8_t weir_byte_classes[256] = {
    ['0' ... '9'] = ALL, ['A' ... 'Z'] = ALL, ['a' ... 'z'] = ALL,
    ['-'] = ALL, ['.'] = ALL, ['_'] = ALL, ['~'] = ALL, ['%'] = ALL,
    ['!'] = BOTH, ['$'] = BOTH, ['&'] = BOTH, ['\''] = BOTH, ['*'] = BOTH, ['+'] = BOTH,
    ['|'] = BOTH,
    ['#'] = WEIR_CLASS_TOKEN, ['^'] = WEIR_CLASS_TOKEN, ['`'] = WEIR_CLASS_TOKEN,
    ['('] = WEIR_CLASS_TARGET, [')'] = WEIR_CLASS_TARGET, [','] = WEIR_CLASS_TARGET,
    ['/'] = WEIR_CLASS_TARGET, [':'] = WEIR_CLASS_TARGET, [';'] = WEIR_CLASS_TARGET,
    ['='] = WEIR_CLASS_TARGET, ['?'] = WEIR_CLASS_TARGET, ['@'] = WEIR_CLASS_TARGET,
    ['['] = WEIR_CLASS_TARGET, [']'] = WEIR_CLASS_TARGET, ['{'] = WEIR_CLASS_TARGET,
    ['}'] = WEIR_CLASS_TARGET,
};
