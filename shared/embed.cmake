# Turns file IN into C source OUT that defines SYMBOL (see sp_embed).
file(READ ${IN} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${hex}")
get_filename_component(name ${IN} NAME)
file(WRITE ${OUT} "/* made from ${name}; do not edit */\n#include <stddef.h>\nextern const char ${SYMBOL}[];\nextern const size_t ${SYMBOL}_len;\nconst char ${SYMBOL}[] = {${bytes}0};\nconst size_t ${SYMBOL}_len = ${size};\n")
