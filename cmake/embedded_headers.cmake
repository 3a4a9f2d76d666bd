# SPDX-License-Identifier: Apache-2.0
# The headers that the run-time compilers read, as a source file of the library: FULMEN_EMBEDDED_HEADERS.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(FULMEN_INCLUDE ${PROJECT_SOURCE_DIR}/include)
file(GLOB_RECURSE FULMEN_JIT_HEADERS CONFIGURE_DEPENDS ${FULMEN_INCLUDE}/fulmen/cuda/*.h ${FULMEN_INCLUDE}/fulmen/cuda/*.cuh
     ${FULMEN_INCLUDE}/fulmen/cpu/text/*.h)
foreach(name portable dtype f16 bf16 fp8 math loop_math philox)
  list(APPEND FULMEN_JIT_HEADERS ${FULMEN_INCLUDE}/fulmen/core/${name}.h)
endforeach()
foreach(name key cascade_model variant variants flashinfer_variant variant_table tile_mask state plan_records)
  if(EXISTS ${FULMEN_INCLUDE}/fulmen/attention/${name}.h)
    list(APPEND FULMEN_JIT_HEADERS ${FULMEN_INCLUDE}/fulmen/attention/${name}.h)
  endif()
endforeach()
set(FULMEN_EMBEDDED_HEADERS ${PROJECT_BINARY_DIR}/generated/embedded_headers.cc)
add_custom_command(
  OUTPUT ${FULMEN_EMBEDDED_HEADERS}
  COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/embed_headers.py --root ${FULMEN_INCLUDE} --out ${FULMEN_EMBEDDED_HEADERS}
          ${FULMEN_JIT_HEADERS}
  DEPENDS ${FULMEN_JIT_HEADERS} ${PROJECT_SOURCE_DIR}/tools/embed_headers.py
  VERBATIM)
