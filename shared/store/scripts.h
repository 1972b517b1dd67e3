/* The Lua scripts of lua/, embedded at build time (see CMakeLists). */
#ifndef STORE_SCRIPTS_H
#define STORE_SCRIPTS_H

extern const char lua_enqueue[], lua_identity[], lua_claim[], lua_release[], lua_beat[], lua_assert[],
    lua_requeue[], lua_cancel[], lua_progress[], lua_reset[], lua_backlog[], lua_lead[], lua_permit[],
    lua_forget[];

#endif
