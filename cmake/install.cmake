# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts where, so that find_package(fulmen) and pkg-config find it.
include(CMakePackageConfigHelpers)
option(FULMEN_INSTALL "Install rules" ${PROJECT_IS_TOP_LEVEL})
if(FULMEN_INSTALL)
  set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fulmen)
  install(TARGETS fulmen fulmen_headers EXPORT fulmen COMPONENT fulmen)
  install(DIRECTORY include/fulmen DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT fulmen)
  install(EXPORT fulmen NAMESPACE fulmen:: FILE fulmen-targets.cmake DESTINATION ${config_dir} COMPONENT fulmen)
  configure_package_config_file(cmake/fulmen-config.cmake.in fulmen-config.cmake INSTALL_DESTINATION ${config_dir})
  write_basic_package_version_file(fulmen-config-version.cmake COMPATIBILITY SameMinorVersion)
  configure_file(cmake/fulmen.pc.in fulmen.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fulmen-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/fulmen-config-version.cmake
          DESTINATION ${config_dir} COMPONENT fulmen)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fulmen.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT fulmen)
  install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT fulmen)
endif()
