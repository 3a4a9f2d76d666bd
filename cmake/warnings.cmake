# SPDX-License-Identifier: Apache-2.0
# One set of warnings for everything of ours, plus the sanitizers of the preset.
function(fulmen_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12 asks for every field of a struct that is filled by designated initialisers, and -Wrestrict is wrong about
    # std::string ("literal" + string).
    target_compile_options(${target} PRIVATE -Wno-missing-field-initializers -Wno-restrict)
  endif()
  if(FULMEN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(FULMEN_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${FULMEN_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${FULMEN_SANITIZE})
  endif()
endfunction()
